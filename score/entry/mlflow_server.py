"""Request bodies of MLflow's scoring server: Azure's `input_data` as well as MLflow's own keys.

In every format the limits and the check of columns are those of the other surfaces.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from score.contract import wire
from score.contract.limits import check_body_size, check_row_count
from score.contract.rows import COLUMNS, is_empty
from score.entry.mlflow_errors import mlflow_errors
from score.entry.mlflow_process import SERVER, is_server, is_server_process
from score.settings import Settings
from score.tables import frames

log = logging.getLogger(__name__)

READERS = ("invocations", "_decode_json_input", "parse_csv_input", "parse_parquet_input")
"""The functions of MLflow's server that read request bodies (as of MLflow 3)."""

_originals: dict[str, Any] = {}  # name → MLflow's own reader, of those that are replaced
_JSON, _CSV = "application/json", "text/csv"


def accept_input_data(settings: Settings) -> Callable[[], None]:
    """Makes MLflow's scoring server, if this process is one, accept Azure's `input_data` body.

    The server accepts four keys and has no hook to add one, so the functions that read its bodies
    are replaced. In other processes MLflow is not changed. Returns a function that restores
    MLflow's own functions: for a process that acts as a server for one call only, as in
    `mlflow.models.predict` and `validate_serving_input`, and may load another model next.
    """
    if not is_server():
        return do_nothing
    server = sys.modules[SERVER]
    for name in READERS:
        if hasattr(server, name):
            _originals.setdefault(name, getattr(server, name))
        else:
            log.warning("this version of MLflow has no %s: some request bodies will fail", name)
    release = do_nothing if is_server_process() else _restore
    readers = _Readers(settings, _originals.get("invocations"), release)
    for name in _originals:
        setattr(server, name, getattr(readers, name))
    return release


def do_nothing() -> None:
    """Does nothing: where MLflow was not changed, or stays changed."""


def _restore() -> None:
    for name, function in _originals.items():
        setattr(sys.modules[SERVER], name, function)


class _Readers:
    """Readers of request bodies, each under its name in MLflow's server."""

    def __init__(self, settings: Settings, invocations: Any, release: Callable[[], None]) -> None:
        """`release` is called when a body is refused."""
        self._max_rows, self._max_bytes = settings.max_request_rows, settings.max_request_bytes
        self._answer = invocations
        self._errors = partial(mlflow_errors, release)

    def invocations(self, data: bytes, content_type: str | None, *model: Any) -> Any:
        """The answer to a body; a body over the limit is refused before it is parsed."""
        with self._errors():
            check_body_size(len(data), self._max_bytes)
        content_type = content_type or _JSON
        if content_type.startswith(_CSV):
            # Invalid UTF-8 fails its row only; MLflow would return the whole body in an error.
            return self._answer(data.decode("utf-8-sig", "surrogateescape"), content_type, *model)
        return self._answer(data, content_type, *model)

    def _decode_json_input(self, json_input: bytes | str) -> dict[str, Any]:
        """Accepts `input_data` and MLflow's four keys, and refuses others."""
        with self._errors():
            request = wire.parse(json_input)
            check_row_count(len(request.rows), self._max_rows)
        return {
            "dataframe_split": {
                "columns": list(COLUMNS),
                # None for empty cells: MLflow turns a column of NaN into numbers.
                "data": [[_filled(row.image), _filled(row.text)] for row in request.rows],
            },
            "params": request.params.wire(),
        }

    def parse_csv_input(self, csv_input: Any, schema: object = None) -> pd.DataFrame:
        """Reads empty columns as text, and checks the number of cells in each line."""
        with self._errors():
            return frames.read_csv(csv_input, max_rows=self._max_rows)

    def parse_parquet_input(self, parquet_input: Any) -> pd.DataFrame:
        """Checks the uncompressed size in the file's metadata before anything is unpacked."""
        with self._errors():
            return frames.read_parquet(
                parquet_input, max_rows=self._max_rows, max_bytes=self._max_bytes
            )


def _filled(cell: object) -> object:
    return None if is_empty(cell) else cell
