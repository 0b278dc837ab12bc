"""One request in one dialect: a message in, a status and a body out. All HTTP surfaces use it.

Knows the dialects; knows no web framework.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from score.contract import wire
from score.contract.limits import check_body_size, check_row_count
from score.contract.rows import Record, Row
from score.core.embedder import Embedder, pipeline_of
from score.core.models import Models
from score.dialects import azure
from score.dialects.base import JSON, Message, Page, Refusal, Refuse, Reply, Route
from score.errors import BadField, RequestError
from score.fetch.cancellation import Cancellation

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """An HTTP response: status, body, the body's content type, and headers beside that."""

    status: int
    body: bytes
    kind: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})


Observer = Callable[[Sequence[Row], Sequence[Record]], None]


def score(
    embedder: Embedder, body: bytes, observer: Observer | None = None, content_type: str = ""
) -> Answer:
    """Answers a request to `/score` by one model. Never raises."""
    message = Message(body, content_type)
    return answer(Models({"": embedder}), azure.SCORE, message, observer)


def answer(
    models: Models,
    route: Route,
    message: Message,
    observer: Observer | None = None,
    cancellation: Cancellation | None = None,
) -> Answer:
    """Answers a request. Never raises: a bad request is a 4xx with the reason, a bug a 500 whose
    details go only to the log. Both have the shape of the route's dialect.

    `observer` is called with the rows and records of each request that gets a 200. It must not
    raise. `cancellation` ends the request early.
    """
    try:
        return _answered(models, route, message, observer, cancellation)
    except RequestError as error:
        return refuse(error, route.refuse)
    except Exception:
        return _failed(route.refuse)


def read(models: Models, page: Page, message: Message) -> Answer:
    """Answers a request for a page. Never raises."""
    try:
        facts = models.facts()
        if message.model is not None:
            facts = [models.facts_of(*models.find(message.model))]
        return _bytes(page.content(facts, message))
    except RequestError as error:
        return refuse(error, page.refuse)
    except Exception:
        return _failed(page.refuse)


def _answered(
    models: Models,
    route: Route,
    message: Message,
    observer: Observer | None,
    cancellation: Cancellation | None,
) -> Answer:
    check_body_size(len(message.body), models.settings.max_request_bytes)
    most = models.settings.max_request_rows
    call = route.parse(dataclasses.replace(message, most_rows=most))
    check_row_count(len(call.rows), most)
    name, embedder = models.find(call.model)
    if call.dimension is not None and call.dimension != embedder.dimension:
        field, wanted = call.dimension_field, embedder.dimension
        raise BadField(f"{field!r} must be {wanted}, the length of this model's vectors", field)
    records = embedder.answer(
        call.rows, call.params, cancellation, classify_texts=call.classify_texts
    )
    if observer:
        observer(call.rows, records)
    with pipeline_of(embedder).observer.timed("render"):
        return _bytes(Reply(200, call.render(records, models.facts_of(name, embedder))))


def refuse(error: RequestError, shape: Refuse = azure.refuse) -> Answer:
    """The response of a RequestError."""
    return _refused(Refusal.of(error), shape, error.retry_after)


def problem(
    status: int,
    code: str,
    message: str,
    shape: Refuse = azure.refuse,
    retry_after: int | None = None,
) -> Answer:
    """An error response for errors that are no RequestError: a wrong path or method, a crash.

    retry_after: seconds after which the request may be sent again.
    """
    return _refused(Refusal(status, code, message), shape, retry_after)


def _refused(refusal: Refusal, shape: Refuse, retry_after: int | None) -> Answer:
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return _bytes(shape(refusal))._replace(headers=headers)


def _failed(shape: Refuse) -> Answer:
    log.exception("a request failed inside the model")
    return problem(500, "internal_error", "the model failed; the server's log says why", shape)


def _bytes(reply: Reply) -> Answer:
    content = reply.content
    body = content.encode() if isinstance(content, str) else wire.dump(content)
    return Answer(reply.status, body, reply.kind)
