"""The MLflow flavour: `mlflow.pyfunc.load_model(".")`, `mlflow models serve` and `predict`.

`MLmodel` names this module as the loader, so loading a model runs this code and unpickles nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import wraps
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from score import frames, wire
from score.embedder import Embedder
from score.errors import RequestError
from score.params import Params
from score.rows import is_empty
from score.settings import Settings


class Model:
    """What `mlflow.pyfunc` wraps."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """A record for each row of a frame with `image` and/or `text` columns.

        A record holds `image_features` and/or `text_features`, lists of `dimension` plain floats,
        or under `on_error="report"` an `error`. Raises MlflowException, which MLflow's server
        answers as a 400 without a stack trace and with our error body under `"error"`.
        """
        with _refusing():
            rows = frames.rows_of(model_input)
            records = self.embedder.answer(rows, Params.parse(params))
        return [wire.render(record) for record in records]


def _load_pyfunc(data_path: str) -> Model:
    """MLflow's entry point: `data_path` is the folder that `MLmodel` names as `data`."""
    _accept_input_data()
    return Model(Embedder.load(data_path, Settings.from_env(os.environ)))


class _refusing:
    """Turns our refusals into the exception that MLflow's server knows how to answer."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RequestError):
            raise _refusal(error) from None


def _refusal(error: RequestError) -> MlflowException:
    return MlflowException(
        str(error), error_code=INVALID_PARAMETER_VALUE, error=wire.error_body(error)
    )


_SERVER = "mlflow.pyfunc.scoring_server"


def _accept_input_data() -> None:
    """Teaches MLflow's scoring server, where this process runs it, Azure's `input_data` body.

    The server knows four keys and offers no hook to add one, so its request decoder is wrapped
    (`_decode_json_input`, as of MLflow 3). Any other process keeps MLflow as it came.
    """
    server = sys.modules.get(_SERVER)
    if server is None or not _is_serving():
        return
    decode = getattr(server, "_decode_json_input", None)
    if decode is None or hasattr(decode, "__wrapped__"):
        return

    @wraps(decode)
    def decode_with_input_data(json_input: object) -> dict[str, Any]:
        body: dict[str, Any] = decode(json_input)
        return _as_split(body) if "input_data" in body else body

    server._decode_json_input = decode_with_input_data  # type: ignore[attr-defined]


def _is_serving() -> bool:
    """Whether MLflow's server, or `mlflow models predict`, is what loads the model."""
    return f"{_SERVER}.app" in sys.modules or "_mlflow_pyfunc_backend_predict" in " ".join(sys.argv)


def _as_split(body: dict[str, Any]) -> dict[str, Any]:
    """Azure's body as MLflow spells it; empty cells become None, which any column may hold."""
    with _refusing():
        rows = wire.parse_table(body["input_data"])
    data = [[None if is_empty(cell) else cell for cell in (row.image, row.text)] for row in rows]
    return {
        "dataframe_split": {"columns": ["image", "text"], "data": data},
        **({"params": body["params"]} if "params" in body else {}),
    }
