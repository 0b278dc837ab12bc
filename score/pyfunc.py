"""The MLflow flavour: `mlflow.pyfunc.load_model(".")`, `mlflow models serve` and `predict`.

`MLmodel` names this module as `loader_module`: loading a model runs this code and no pickle.
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
    """The Python model that `mlflow.pyfunc` wraps."""

    def __init__(self, embedder: Embedder, release: Callable[[], None] = lambda: None) -> None:
        """`release` is called at the beginning of each `predict`."""
        self.embedder = embedder
        self._release = release
        self._is_python = not _is_http() and not _is_under_spark()
        # A limit for request bodies. The rows of a caller in this process are in memory already.
        self._max_rows = embedder.settings.max_request_rows if _is_http() else None
        self._blank = _blanks()

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """A record for each row of a frame with `image` and/or `text` columns.

        A record holds `image_features` and `text_features`, lists of `dimension` floats; with
        labels also `labels` and `probs`, and under `on_error="report"` an `error`. The features of
        an empty cell are None; in an HTTP server's answers their key is left out. Raises
        MlflowException, which MLflow's server answers with a 400 or 413, without a stack trace and
        with our error body under `"error"`.
        """
        self._release()
        with _refusing():
            # Over HTTP and in Spark a row has exactly one record, so cells are not unpacked.
            table = frames.unpacked(model_input) if self._is_python else model_input
            rows = frames.rows_of(table)
            if self._max_rows is not None and len(rows) > self._max_rows:
                raise too_many_rows(self._max_rows)
            parsed = Params.parse(params)
            records = self.embedder.answer(rows, parsed)
        blank = self._blank(parsed)
        return [blank | wire.render(record) for record in records]


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> Model:
    """MLflow's entry point.

    data_path: the folder that `MLmodel` names as `data`. model_config: settings by name, from
    `MLmodel` or `load_model(…, model_config=…)`; environment variables take precedence.
    """
    settings = Settings.from_env(os.environ, model_config or {})
    embedder = Embedder.load(data_path, settings)
    return Model(embedder, _accept_input_data(settings))


class _refusing:
    """Turns a RequestError into an MlflowException, which MLflow's server answers with a 4xx."""

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        """`release` is called where the block raises."""
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
    """Answered with a 413 by MLflow's server, which has no error code for one."""

    def get_http_status_code(self) -> int:
        return RequestTooLarge.status


_SERVER = "mlflow.pyfunc.scoring_server"
_READERS = ("invocations", "_decode_json_input", "parse_csv_input", "parse_parquet_input")
_originals: dict[str, Any] = {}  # MLflow's own functions, by name, where they are replaced
_JSON, _CSV = "application/json", "text/csv"


def _accept_input_data(settings: Settings) -> Callable[[], None]:
    """Makes MLflow's scoring server, where this process is one, accept Azure's `input_data` body.

    The server knows four keys and has no hook to add one, so the functions that read request bodies
    are replaced by ours. In any other process nothing is replaced. `mlflow.models.predict` and
    `validate_serving_input` use the server's functions for one call only; the returned function
    restores MLflow's own, since the process may load another model next.
    """
    if not _is_server():
        return _nothing
    server = sys.modules[_SERVER]
    for name in _READERS:
        if hasattr(server, name):
            _originals.setdefault(name, getattr(server, name))
        else:
            log.warning("this MLflow has no %s: its server will not take every body", name)
    release = _nothing if _is_server_process() else _restore
    ours = _Bodies(settings, _originals.get("invocations"), release)
    for name in _originals:
        setattr(server, name, getattr(ours, name))
    return release


def _restore() -> None:
    for name, function in _originals.items():
        setattr(sys.modules[_SERVER], name, function)


def _nothing() -> None: ...


class _Bodies:
    """Reads request bodies, by functions named as in MLflow's server (as of MLflow 3).

    Every format has the same limits and the same check of columns.
    """

    def __init__(self, settings: Settings, invocations: Any, release: Callable[[], None]) -> None:
        """`invocations`: MLflow's own. `release` is called where a body is refused."""
        self._max_rows, self._max_bytes = settings.max_request_rows, settings.max_request_bytes
        self._answer = invocations
        self._refusing = partial(_refusing, release)

    def invocations(self, data: bytes, content_type: str | None, *model: Any) -> Any:
        """The response to a body; one over the limit is not parsed."""
        with self._refusing():
            if len(data) > self._max_bytes:
                raise body_too_large(self._max_bytes)
        content_type = content_type or _JSON
        if content_type.startswith(_CSV):
            # Bytes that are not UTF-8 fail their row; MLflow's error would contain the whole body.
            return self._answer(data.decode("utf-8-sig", "surrogateescape"), content_type, *model)
        return self._answer(data, content_type, *model)

    def _decode_json_input(self, json_input: bytes | str) -> dict[str, Any]:
        """Accepts `input_data` and MLflow's four keys, and refuses others."""
        with self._refusing():
            request = wire.parse(json_input)
            if len(request.rows) > self._max_rows:
                raise too_many_rows(self._max_rows)
        return {
            "dataframe_split": {
                "columns": list(COLUMNS),
                # None: MLflow would make a column of empty strings one of numbers.
                "data": [[_filled(row.image), _filled(row.text)] for row in request.rows],
            },
            "params": request.params.wire(),
        }

    def parse_csv_input(self, csv_input: Any, schema: object = None) -> pd.DataFrame:
        """Reads all cells as text, and refuses a line with too many or too few."""
        with self._refusing():
            return frames.read_csv(csv_input, max_rows=self._max_rows)

    def parse_parquet_input(self, parquet_input: Any) -> pd.DataFrame:
        """Checks the sizes in the file's metadata before it decompresses anything."""
        with self._refusing():
            return frames.read_parquet(
                parquet_input, max_rows=self._max_rows, max_bytes=self._max_bytes
            )


def _is_server() -> bool:
    """Whether MLflow's server, or `mlflow models predict`, which acts as it, loads the model."""
    served = _is_server_process() or _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()
    return _SERVER in sys.modules and bool(served)


def _is_server_process() -> bool:
    """Whether this process runs MLflow's server."""
    return f"{_SERVER}.app" in sys.modules


_AZURE_SERVER = "azureml_inference_server_http.server.user_script"


def _is_http() -> bool:
    """Whether `predict` answers HTTP requests: under MLflow's server or Azure's script."""
    return _is_server() or _AZURE_SERVER in sys.modules


def _is_under_spark() -> bool:
    """Whether this process is a Python worker of Spark, or a scoring server that a worker started.

    `spark_udf` starts such servers for any `env_manager` but `local`. Spark sets the variable in
    every worker, and servers inherit it. The driver has it, too; it alone has a SparkContext.
    """
    return "SPARK_BUFFER_SIZE" in os.environ and not _is_spark_driver()


def _is_spark_driver() -> bool:
    context = getattr(sys.modules.get("pyspark"), "SparkContext", None)
    return getattr(context, "_active_spark_context", None) is not None


def _blanks() -> Callable[[Params], dict[str, Any]]:
    """The function that returns the keys which every record has in this process."""
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
