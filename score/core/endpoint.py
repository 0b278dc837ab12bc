"""One scoring request: a body in, a status and a body out. All HTTP surfaces of ours use it.

Knows the contract; knows no web framework.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from score.contract import wire
from score.contract.limits import check_body_size, check_row_count
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.errors import Overloaded, RequestError
from score.fetch.cancellation import Cancellation

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """An HTTP response: status, JSON body, and headers beside its Content-Type."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


Observer = Callable[[Sequence[Row], Sequence[Record]], None]


def score(
    embedder: Embedder,
    body: bytes,
    observer: Observer | None = None,
    cancellation: Cancellation | None = None,
) -> Answer:
    """Answers a request. Never raises: a bad request is a 4xx with the reason, a bug a 500 whose
    details go only to the log.

    `observer` is called with the rows and records of each request that gets a 200. It must not
    raise. `cancellation` ends the request early.
    """
    settings = embedder.settings
    try:
        check_body_size(len(body), settings.max_request_bytes)
        request = wire.parse(body)
        check_row_count(len(request.rows), settings.max_request_rows)
        records = embedder.answer(request.rows, request.params, cancellation)
        if observer:
            observer(request.rows, records)
        return Answer(200, wire.dump([wire.render(record) for record in records]))
    except RequestError as error:
        return refuse(error)
    except Exception:
        log.exception("a request failed inside the model")
        return problem(500, "internal_error", "the model failed; the server's log says why")


def refuse(error: RequestError) -> Answer:
    """The response of a RequestError."""
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Overloaded) else {}
    return Answer(error.status, wire.dump({"error": wire.error_body(error)}), headers)


def problem(status: int, code: str, message: str) -> Answer:
    """An error response for errors that are no RequestError: a wrong path or method, a crash."""
    return Answer(status, wire.dump({"error": {"code": code, "message": message, "rows": []}}))
