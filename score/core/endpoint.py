"""One scoring request: a body in, a status and a body out. All HTTP surfaces of ours use it.

Knows the contract; knows no web framework.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from score.contract import wire
from score.contract.limits import check_body_size, check_row_count
from score.contract.rows import Record, Row
from score.core.embedder import Embedder, pipeline_of
from score.errors import RequestError

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """An HTTP response: status and JSON body."""

    status: int
    body: bytes


Observer = Callable[[Sequence[Row], Sequence[Record]], None]


def score(embedder: Embedder, body: bytes, observer: Observer | None = None) -> Answer:
    """Answers a request. Never raises: a bad request is a 4xx with the reason, a bug a 500 whose
    details go only to the log.

    `observer` is called with the rows and records of each request that gets a 200. It must not
    raise.
    """
    settings = embedder.settings
    try:
        check_body_size(len(body), settings.max_request_bytes)
        request = wire.parse(body)
        check_row_count(len(request.rows), settings.max_request_rows)
        records = embedder.answer(request.rows, request.params)
        if observer:
            observer(request.rows, records)
        with pipeline_of(embedder).observer.timed("render"):
            return Answer(200, wire.dump([wire.render(record) for record in records]))
    except RequestError as error:
        return refuse(error)
    except Exception:
        log.exception("a request failed inside the model")
        return problem(500, "internal_error", "the model failed; the server's log says why")


def refuse(error: RequestError) -> Answer:
    """The 4xx response of a RequestError."""
    return Answer(error.status, wire.dump({"error": wire.error_body(error)}))


def problem(status: int, code: str, message: str) -> Answer:
    """An error response for errors that are no RequestError: a wrong path or method, a crash."""
    return Answer(status, wire.dump({"error": {"code": code, "message": message, "rows": []}}))
