"""The MLflow flavour: `mlflow.pyfunc.load_model(".")`, `mlflow models serve` and `predict`.

`MLmodel` names this module as the loader, so loading a model runs this code and unpickles nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from score import frames, wire
from score.embedder import Embedder
from score.errors import RequestError, RequestTooLarge, body_too_large, too_many_rows
from score.params import Params
from score.rows import COLUMNS, is_empty
from score.settings import Settings

log = logging.getLogger(__name__)


class Model:
    """What `mlflow.pyfunc` wraps."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._is_server = _is_server()
        # Of bodies. Rows that a caller in this process gives are in memory already.
        self._max_rows = embedder.settings.max_request_rows if _is_http() else None
        self._blank = _blanks()

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """A record for each row of a frame with `image` and/or `text` columns.

        A record holds `image_features` and `text_features`, lists of `dimension` plain floats; with
        labels also `labels` and `probs`, and under `on_error="report"` an `error`. What a row did
        not ask for is None; in an HTTP server's answers its key is left out. Raises
        MlflowException, which MLflow's server answers as a 400 without a stack trace and with our
        error body under `"error"`.
        """
        with _refusing():
            table = model_input if self._is_server else frames.unpacked(model_input)
            rows = frames.rows_of(table)
            if self._max_rows is not None and len(rows) > self._max_rows:
                raise too_many_rows(self._max_rows)
            asked = Params.parse(params)
            records = self.embedder.answer(rows, asked)
        blank = self._blank(asked)
        return [blank | wire.render(record) for record in records]


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> Model:
    """MLflow's entry point: `data_path` is the folder that `MLmodel` names as `data`.

    `model_config`: settings by name, as `MLmodel` or `load_model(…, model_config=…)` give them; the
    environment's go before them.
    """
    settings = Settings.from_env(os.environ, model_config or {})
    _accept_input_data(settings)
    return Model(Embedder.load(data_path, settings))


class _refusing:
    """Turns our refusals into the exception that MLflow's server knows how to answer."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RequestError):
            kind = _TooLarge if isinstance(error, RequestTooLarge) else MlflowException
            raise kind(
                str(error), error_code=INVALID_PARAMETER_VALUE, error=wire.error_body(error)
            ) from None


class _TooLarge(MlflowException):  # type: ignore[misc]  # MLflow's types are not known here
    """A refusal that MLflow's server answers as a 413; it has no error code for one."""

    def get_http_status_code(self) -> int:
        return RequestTooLarge.status


_SERVER = "mlflow.pyfunc.scoring_server"
_JSON, _CSV = "application/json", "text/csv"


def _accept_input_data(settings: Settings) -> None:
    """Teaches MLflow's scoring server, where this process is one, Azure's `input_data` body.

    The server knows four keys and offers no hook to add one, so what reads its bodies is replaced
    by ours. Any other process keeps MLflow as it came.
    """
    if not _is_server():
        return
    server = sys.modules[_SERVER]
    ours = _Bodies(settings, getattr(server, "invocations", None))
    for name in ("invocations", "_decode_json_input", "parse_csv_input", "parse_parquet_input"):
        if hasattr(server, name):
            setattr(server, name, getattr(ours, name))
        else:
            log.warning("this MLflow has no %s: its server will not take every body", name)


class _Bodies:
    """What reads bodies, each function under its name in MLflow's server (as of MLflow 3).

    In every format they are held to the same limits and the same check of columns.
    """

    def __init__(self, settings: Settings, invocations: Any) -> None:
        self._max_rows, self._max_bytes = settings.max_request_rows, settings.max_request_bytes
        self._answer = invocations

    def invocations(self, data: bytes, content_type: str | None, *model: Any) -> Any:
        """The answer to a body, which is not looked into when it is over the limit."""
        with _refusing():
            if len(data) > self._max_bytes:
                raise body_too_large(self._max_bytes)
        content_type = content_type or _JSON
        if content_type.startswith(_CSV):
            # Bytes that are not UTF-8 fail their row; MLflow would send the whole body back.
            return self._answer(data.decode("utf-8-sig", "surrogateescape"), content_type, *model)
        return self._answer(data, content_type, *model)

    def _decode_json_input(self, json_input: bytes | str) -> dict[str, Any]:
        """Knows `input_data` and MLflow's four keys, and refuses others."""
        with _refusing():
            request = wire.parse(json_input)
            if len(request.rows) > self._max_rows:
                raise too_many_rows(self._max_rows)
        return {
            "dataframe_split": {
                "columns": list(COLUMNS),
                # None, because a column of nothing else would turn into numbers under MLflow.
                "data": [[_filled(row.image), _filled(row.text)] for row in request.rows],
            },
            "params": request.params.wire(),
        }

    def parse_csv_input(self, csv_input: Any, schema: object = None) -> pd.DataFrame:
        """Takes no column of empty cells for numbers, and counts each line's cells."""
        with _refusing():
            return frames.read_csv(csv_input, max_rows=self._max_rows)

    def parse_parquet_input(self, parquet_input: Any) -> pd.DataFrame:
        """Looks at the file's own account of its size before anything is unpacked."""
        with _refusing():
            return frames.read_parquet(
                parquet_input, max_rows=self._max_rows, max_bytes=self._max_bytes
            )


def _is_server() -> bool:
    """Whether MLflow's server, or `mlflow models predict` in its guise, is loading the model."""
    served = f"{_SERVER}.app" in sys.modules or _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()
    return _SERVER in sys.modules and bool(served)


_AZURE_SERVER = "azureml_inference_server_http.server.user_script"


def _is_http() -> bool:
    """Whether what `predict` returns becomes an HTTP body: MLflow's, or that of Azure's script."""
    return _is_server() or _AZURE_SERVER in sys.modules


def _is_under_spark() -> bool:
    """Whether this is a Python worker of Spark's, or a server of MLflow's that one has started.

    `spark_udf` starts such servers for any `env_manager` but `local`. Spark gives every worker this
    variable, and a server inherits it.
    """
    return "SPARK_BUFFER_SIZE" in os.environ


def _blanks() -> Callable[[Params], dict[str, Any]]:
    """What makes the keys that every record has, in this process."""
    if _is_under_spark():
        return _spark_blank
    return _no_keys if _is_http() else wire.blank


def _no_keys(params: Params) -> dict[str, Any]:
    return {}


def _spark_blank(params: Params) -> dict[str, Any]:
    """As `wire.blank`, but an error is a struct of nulls: `spark_udf` fails on a null struct."""
    blank = wire.blank(params)
    if "error" in blank:
        blank["error"] = dict.fromkeys(("code", "message", "retryable"))
    return blank


def _filled(cell: object) -> object:
    return None if is_empty(cell) else cell
