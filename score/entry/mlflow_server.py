"""The MLflow flavour: `mlflow.pyfunc.load_model(".")`, `mlflow models serve` and `predict`.

`MLmodel` names this module as the loader, so loading a model runs this code and unpickles nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import COLUMNS, is_empty
from score.core.embedder import Embedder
from score.errors import RequestError, RequestTooLarge, body_too_large, too_many_rows
from score.settings import Settings
from score.tables import frames

log = logging.getLogger(__name__)


class Model:
    """What `mlflow.pyfunc` wraps."""

    def __init__(self, embedder: Embedder, release: Callable[[], None] = lambda: None) -> None:
        """`release` is called before the model is asked."""
        self.embedder = embedder
        self._release = release
        self._is_python = not _is_http() and not _is_under_spark()
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
        self._release()
        with _refusing():
            # A row of a body or of Spark's has one answer, whatever its cells hold.
            table = frames.unpacked(model_input) if self._is_python else model_input
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
    embedder = Embedder.load(data_path, settings)
    return Model(embedder, _accept_input_data(settings))


class _refusing:
    """Turns our refusals into the exception that MLflow's server knows how to answer."""

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        """`release` is called before an exception goes on."""
        self._release = release

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error and self._release:
            self._release()
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
_READERS = ("invocations", "_decode_json_input", "parse_csv_input", "parse_parquet_input")
_theirs: dict[str, Any] = {}  # MLflow's own readers, by name, where they are replaced
_JSON, _CSV = "application/json", "text/csv"


def _accept_input_data(settings: Settings) -> Callable[[], None]:
    """Teaches MLflow's scoring server, where this process is one, Azure's `input_data` body.

    The server knows four keys and offers no hook to add one, so what reads its bodies is replaced
    by ours. Any other process keeps MLflow as it came. One that only acts as a server for a call,
    as `mlflow.models.predict` and `validate_serving_input` do, gets MLflow's own functions back by
    calling what is returned: its next model may be another's.
    """
    if not _is_server():
        return _nothing
    server = sys.modules[_SERVER]
    for name in _READERS:
        if hasattr(server, name):
            _theirs.setdefault(name, getattr(server, name))
        else:
            log.warning("this MLflow has no %s: its server will not take every body", name)
    release = _nothing if _is_server_process() else _give_back
    ours = _Bodies(settings, _theirs.get("invocations"), release)
    for name in _theirs:
        setattr(server, name, getattr(ours, name))
    return release


def _give_back() -> None:
    for name, function in _theirs.items():
        setattr(sys.modules[_SERVER], name, function)


def _nothing() -> None: ...


class _Bodies:
    """What reads bodies, each function under its name in MLflow's server (as of MLflow 3).

    In every format they are held to the same limits and the same check of columns.
    """

    def __init__(self, settings: Settings, invocations: Any, release: Callable[[], None]) -> None:
        """`release` is called where a body is refused."""
        self._max_rows, self._max_bytes = settings.max_request_rows, settings.max_request_bytes
        self._answer = invocations
        self._refusing = partial(_refusing, release)

    def invocations(self, data: bytes, content_type: str | None, *model: Any) -> Any:
        """The answer to a body, which is not looked into when it is over the limit."""
        with self._refusing():
            if len(data) > self._max_bytes:
                raise body_too_large(self._max_bytes)
        content_type = content_type or _JSON
        if content_type.startswith(_CSV):
            # Bytes that are not UTF-8 fail their row; MLflow would send the whole body back.
            return self._answer(data.decode("utf-8-sig", "surrogateescape"), content_type, *model)
        return self._answer(data, content_type, *model)

    def _decode_json_input(self, json_input: bytes | str) -> dict[str, Any]:
        """Knows `input_data` and MLflow's four keys, and refuses others."""
        with self._refusing():
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
        with self._refusing():
            return frames.read_csv(csv_input, max_rows=self._max_rows)

    def parse_parquet_input(self, parquet_input: Any) -> pd.DataFrame:
        """Looks at the file's own account of its size before anything is unpacked."""
        with self._refusing():
            return frames.read_parquet(
                parquet_input, max_rows=self._max_rows, max_bytes=self._max_bytes
            )


def _is_server() -> bool:
    """Whether MLflow's server, or `mlflow models predict` in its guise, is loading the model."""
    served = _is_server_process() or _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()
    return _SERVER in sys.modules and bool(served)


def _is_server_process() -> bool:
    """Whether MLflow's server is all that this process is for."""
    return f"{_SERVER}.app" in sys.modules


_AZURE_SERVER = "azureml_inference_server_http.server.user_script"


def _is_http() -> bool:
    """Whether what `predict` returns becomes an HTTP body: MLflow's, or that of Azure's script."""
    return _is_server() or _AZURE_SERVER in sys.modules


def _is_under_spark() -> bool:
    """Whether this is a Python worker of Spark's, or a server of MLflow's that one has started.

    `spark_udf` starts such servers for any `env_manager` but `local`. Spark gives every worker this
    variable, and a server inherits it. The driver has it, too, and a context, which no worker has.
    """
    return "SPARK_BUFFER_SIZE" in os.environ and not _is_spark_driver()


def _is_spark_driver() -> bool:
    context = getattr(sys.modules.get("pyspark"), "SparkContext", None)
    return getattr(context, "_active_spark_context", None) is not None


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
