"""Request bodies of MLflow's scoring server: Azure's `input_data` as well as MLflow's own keys.

In every format the limits and the check of columns are those of the other surfaces.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

import pandas as pd
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT

from score.concurrency.cancellation import Cancellation
from score.contract import wire
from score.contract.limits import check_row_count
from score.contract.rows import COLUMNS, is_empty
from score.core.bodies import Bodies
from score.entry.mlflow_errors import mlflow_errors
from score.entry.mlflow_process import SERVER, is_server, is_server_process
from score.hardware import garbage
from score.settings import Settings
from score.tables import frames

log = logging.getLogger(__name__)

READERS = (
    *("_async_catch_mlflow_exception", "invocations"),
    *("_decode_json_input", "parse_csv_input", "parse_parquet_input"),
)
"""The functions of MLflow's server that read request bodies (as of MLflow 3)."""

Handler = Callable[[Any], Awaitable[Any]]
"""Answers a request of Starlette."""

_call: ContextVar[Cancellation | None] = ContextVar("_call", default=None)
_csv: ContextVar[bytes | None] = ContextVar("_csv", default=None)
_decoded: ContextVar[tuple[object, dict[str, Any]] | None] = ContextVar("_decoded", default=None)
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
    release = _restore
    if is_server_process():
        release = do_nothing
        garbage.leave_out_what_is_loaded()
    readers = _Readers(settings, _originals, release)
    for name in _originals:
        setattr(server, name, getattr(readers, name))
    return release


def call() -> Cancellation | None:
    """What ends the request that this thread answers, when MLflow's server has answered a 504
    instead; None outside such a request."""
    return _call.get()


def do_nothing() -> None:
    """Does nothing: where MLflow was not changed, or stays changed."""


def _restore() -> None:
    for name, function in _originals.items():
        setattr(sys.modules[SERVER], name, function)


class _Readers:
    """Readers of request bodies, each under its name in MLflow's server."""

    def __init__(
        self, settings: Settings, originals: Mapping[str, Any], release: Callable[[], None]
    ) -> None:
        """`originals`: MLflow's own. `release` is called when a body is refused."""
        self._max_rows, self._max_bytes = settings.max_request_rows, settings.max_request_bytes
        self._originals, self._bodies = originals, Bodies(settings)
        self._errors = partial(mlflow_errors, release)

    def _async_catch_mlflow_exception(self, handler: Handler) -> Handler:
        """MLflow's decorator of its handler of requests, with bodies counted while they arrive.

        MLflow would read a body of any size before it calls `invocations`.
        """

        @wraps(handler)
        async def counted(request: Any) -> Any:
            declared = request.headers.get("content-length")
            _call.set(Cancellation(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get() or 0))
            with self._errors(), self._bodies.one(declared) as body:

                async def receive() -> Any:
                    message = await request.receive()
                    body.add(len(message.get("body", b"")))
                    return message

                return await handler(type(request)(request.scope, receive))

        decorated: Handler = self._originals["_async_catch_mlflow_exception"](counted)
        return decorated

    def invocations(self, data: bytes, content_type: str | None, *model: Any) -> Any:
        """The answer to a body, whose size has been checked while it arrived."""
        content_type = content_type or _JSON
        if content_type.startswith(_CSV):
            # Past MLflow, which would make text of it, four bytes a character with one emoji, and
            # return a whole body that is not UTF-8 in an error.
            _csv.set(data)
            data = b""
        try:
            return self._originals["invocations"](data, content_type, *model)
        finally:
            _csv.set(None)
            _decoded.set(None)

    def _decode_json_input(self, json_input: bytes | str) -> dict[str, Any]:
        """Accepts `input_data` and MLflow's four keys, and refuses others.

        MLflow calls it twice for a body, which is parsed once.
        """
        if (known := _decoded.get()) and known[0] is json_input:
            return {**known[1]}
        with self._errors():
            request = wire.parse(json_input, self._max_rows)
            check_row_count(len(request.rows), self._max_rows)
        content: dict[str, Any] = {
            "dataframe_split": {
                "columns": list(COLUMNS),
                # None for empty cells: MLflow turns a column of NaN into numbers.
                "data": [[_filled(row.image), _filled(row.text)] for row in request.rows],
            },
            "params": request.params.wire(),
        }
        _decoded.set((json_input, content))
        return {**content}

    def parse_csv_input(self, csv_input: Any, schema: object = None) -> pd.DataFrame:
        """Reads empty columns as text, and checks the number of cells in each line."""
        with self._errors():
            body = _csv.get()
            source = csv_input if body is None else body
            return frames.read_csv(source, max_rows=self._max_rows)

    def parse_parquet_input(self, parquet_input: Any) -> pd.DataFrame:
        """Checks the uncompressed size in the file's metadata before anything is unpacked."""
        with self._errors():
            return frames.read_parquet(
                parquet_input, max_rows=self._max_rows, max_bytes=self._max_bytes
            )


def _filled(cell: object) -> object:
    return None if is_empty(cell) else cell
