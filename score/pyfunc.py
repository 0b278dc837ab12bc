"""The MLflow flavour: `mlflow.pyfunc.load_model(".")`, `mlflow models serve` and `predict`.

`MLmodel` names this module as `loader_module`: loading a model runs this code and no pickle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from score.contract import wire
from score.contract.limits import NUMBER, check_row_count, check_vectors
from score.contract.params import Params
from score.core.embedder import Embedder
from score.entry.mlflow_errors import mlflow_errors
from score.entry.mlflow_process import is_http, is_under_spark
from score.entry.mlflow_server import accept_input_data, call, do_nothing
from score.settings import Settings
from score.tables import frames

_OF_REQUESTS = (
    *("max_pending_requests", "max_pending_rows", "max_pending_bytes", "max_wait"),
    *("max_request_pixels", "max_scores", "max_answer_bytes", "request_timeout"),
)
"""Settings that hold for HTTP requests alone; 0 is no limit."""


class Model:
    """The Python model that `mlflow.pyfunc` wraps."""

    def __init__(self, embedder: Embedder, release: Callable[[], None] = do_nothing) -> None:
        """`release` is called at the beginning of each `predict`."""
        self.embedder = embedder
        self._release = release
        under_spark = is_under_spark(os.environ)
        self._is_python = not is_http() and not under_spark
        # A limit for request bodies. The rows of a caller in this process are in memory already.
        self._max_rows = embedder.settings.max_request_rows if is_http() else None
        self._blank = _spark_blank if under_spark else _no_keys if is_http() else wire.blank

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
        with mlflow_errors():
            # Over HTTP and in Spark a row has exactly one record, so cells are not unpacked.
            table = frames.unpacked(model_input) if self._is_python else model_input
            rows = frames.rows_of(table)
            if self._max_rows is not None:
                check_row_count(len(rows), self._max_rows)
            parsed = Params.parse(params)
            most = self.embedder.settings.max_answer_bytes
            check_vectors(rows, self.embedder.dimension, NUMBER, most)
            records = self.embedder.answer(rows, parsed, call())
        blank = self._blank(parsed)
        return [blank | wire.render(record) for record in records]


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> Model:
    """MLflow's entry point.

    data_path: the folder that `MLmodel` names as `data`. model_config: settings by name, from
    `MLmodel` or `load_model(…, model_config=…)`; environment variables take precedence.
    """
    settings = Settings.from_env(os.environ, model_config or {})
    if not is_http():  # a frame in this process is no request: it may be as large as it likes
        settings = settings.replace(dict.fromkeys(_OF_REQUESTS, "0"))
    embedder = Embedder.load(data_path, settings)
    return Model(embedder, accept_input_data(settings))


def _no_keys(params: Params) -> dict[str, Any]:
    return {}


def _spark_blank(params: Params) -> dict[str, Any]:
    """As `wire.blank`, but an error is a struct of nulls: `spark_udf` fails on a null struct."""
    blank = wire.blank(params)
    if "error" in blank:
        blank["error"] = dict.fromkeys(("code", "message", "retryable"))
    return blank
