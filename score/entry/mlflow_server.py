"""Request bodies of MLflow's scoring server: Azure's `input_data` as well as MLflow's own keys.

In every format they are held to the limits and the check of columns of our other surfaces.
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
from score.entry.mlflow_errors import refusing
from score.entry.mlflow_process import SERVER, is_server, is_server_process
from score.settings import Settings
from score.tables import frames

log = logging.getLogger(__name__)

READERS = ("invocations", "_decode_json_input", "parse_csv_input", "parse_parquet_input")
"""What reads bodies in MLflow's server (as of MLflow 3)."""

_originals: dict[str, Any] = {}  # MLflow's own readers, by name, where they are replaced
_JSON, _CSV = "application/json", "text/csv"


def accept_input_data(settings: Settings) -> Callable[[], None]:
    """Makes MLflow's scoring server, where this process is one, accept Azure's `input_data` body.

    The server knows four keys and has no hook to add one, so the functions that read its bodies are
    replaced by ours. Any other process keeps MLflow as it was. One that acts as a server for one
    call only, as `mlflow.models.predict` and `validate_serving_input` do, gets MLflow's own
    functions back by calling what is returned: the next model that it loads may be another.
    """
    if not is_server():
        return nothing
    server = sys.modules[SERVER]
    for name in READERS:
        if hasattr(server, name):
            _originals.setdefault(name, getattr(server, name))
        else:
            log.warning("this MLflow has no %s: its server will not take every body", name)
    release = nothing if is_server_process() else _restore
    readers = _Readers(settings, _originals.get("invocations"), release)
    for name in _originals:
        setattr(server, name, getattr(readers, name))
    return release


def nothing() -> None:
    """Does nothing: for a process in which MLflow stays as it is."""


def _restore() -> None:
    for name, function in _originals.items():
        setattr(sys.modules[SERVER], name, function)


class _Readers:
    """What reads bodies, each function under its name in MLflow's server."""

    def __init__(self, settings: Settings, invocations: Any, release: Callable[[], None]) -> None:
        """`release` is called where a body is refused."""
        self._max_rows, self._max_bytes = settings.max_request_rows, settings.max_request_bytes
        self._answer = invocations
        self._refusing = partial(refusing, release)

    def invocations(self, data: bytes, content_type: str | None, *model: Any) -> Any:
        """The answer to a body, which is not parsed when it is over the limit."""
        with self._refusing():
            check_body_size(len(data), self._max_bytes)
        content_type = content_type or _JSON
        if content_type.startswith(_CSV):
            # Bytes that are not UTF-8 fail their row; MLflow would send the whole body back.
            return self._answer(data.decode("utf-8-sig", "surrogateescape"), content_type, *model)
        return self._answer(data, content_type, *model)

    def _decode_json_input(self, json_input: bytes | str) -> dict[str, Any]:
        """Accepts `input_data` and MLflow's four keys, and refuses others."""
        with self._refusing():
            request = wire.parse(json_input)
            check_row_count(len(request.rows), self._max_rows)
        return {
            "dataframe_split": {
                "columns": list(COLUMNS),
                # None, because a column of nothing else would turn into numbers under MLflow.
                "data": [[_filled(row.image), _filled(row.text)] for row in request.rows],
            },
            "params": request.params.wire(),
        }

    def parse_csv_input(self, csv_input: Any, schema: object = None) -> pd.DataFrame:
        """Keeps empty columns as text, and checks the number of cells of each line."""
        with self._refusing():
            return frames.read_csv(csv_input, max_rows=self._max_rows)

    def parse_parquet_input(self, parquet_input: Any) -> pd.DataFrame:
        """Checks the size that the file states before anything is unpacked."""
        with self._refusing():
            return frames.read_parquet(
                parquet_input, max_rows=self._max_rows, max_bytes=self._max_bytes
            )


def _filled(cell: object) -> object:
    return None if is_empty(cell) else cell
