"""One request in one dialect: a message in, a status and a body out. All HTTP surfaces use it.

Knows the dialects; knows no web framework. How large a body may be is checked where it is read
(`core.bodies`), before all of it is there.
"""

from __future__ import annotations

import dataclasses
import logging
import string
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

from score.concurrency.cancellation import Cancellation
from score.concurrency.steps import Steps, on_this_thread
from score.contract import wire
from score.contract.limits import check_row_count, check_vectors
from score.contract.rows import Record, Row
from score.core.embedder import Embedder, pipeline_of, records_of
from score.core.identity import Identity
from score.core.models import Models
from score.core.served_model import ServedModel
from score.dialects import azure
from score.dialects.base import JSON, Call, Message, Page, Refusal, Refuse, Reply, Route
from score.dialects.uploads import is_upload
from score.errors import BadField, RequestError, UnsupportedType
from score.settings import Settings
from score.wording.quoting import quoted

log = logging.getLogger(__name__)

MODEL, FINGERPRINT = "X-Model-Name", "X-Model-Fingerprint"
"""Headers of every answer of a model."""


class Answer(NamedTuple):
    """An HTTP response: status, body, the body's content type, and headers beside that.

    model: the name of the model that answered, or refused; empty where none was asked.
    """

    status: int
    body: bytes
    kind: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})
    model: str = ""

    def by(self, name: str, identity: Identity | None) -> Answer:
        """This answer, by a model: headers say which."""
        said = {} if identity is None else {MODEL: header(name), FINGERPRINT: identity.fingerprint}
        return self._replace(model=name, headers={**self.headers, **said})


def header(text: str) -> str:
    """A text as the value of a header: percent-encoded where it is not printable ASCII."""
    return quote(text, safe=string.punctuation.replace("%", "") + " ", errors="replace").strip()


Observer = Callable[[Sequence[Row], Sequence[Record]], None]


def score(
    embedder: Embedder, body: bytes, observer: Observer | None = None, content_type: str = ""
) -> Answer:
    """Answers a request to `/score` by one model. Never raises."""
    message = Message(body, content_type)
    return answer(Models.of({"": embedder}), azure.SCORE, message, observer)


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

    call = cancellation or Cancellation()
    return on_this_thread(answering(models, route, message, observer, call))


def answering(
    models: Models, route: Route, message: Message, observer: Observer | None, call: Cancellation
) -> Steps[Answer]:
    """`answer` in steps."""
    try:
        asked = _parsed(models.settings, route, message)
        model = models.find(asked.model)
        answer = yield from _by_model(model, route, asked, observer, call)
        return answer._replace(model=model.name)
    except Exception as error:
        return _failed(error, route.refuse)


def read(models: Models, page: Page, message: Message) -> Answer:
    """Answers a request for a page. Never raises."""

    try:
        facts = models.facts()
        if message.model is not None:
            facts = [models.find(message.model).facts]
        return _bytes(page.content(facts, _limited(message, models.settings)))
    except Exception as error:
        return _failed(error, page.refuse)


def _parsed(settings: Settings, route: Route, message: Message) -> Call:
    most = settings.max_request_rows
    try:
        call = route.parse(_limited(message, settings))
    except RequestError as error:
        if type(error) is RequestError:
            _check_type(route, message)
        raise
    check_row_count(len(call.rows), most)
    return call


def _limited(message: Message, settings: Settings) -> Message:
    """A message with the server's limits."""
    rows, prompts = settings.max_request_rows, settings.max_prompts
    return dataclasses.replace(message, most_rows=rows, most_prompts=prompts)


def _check_type(route: Route, message: Message) -> None:
    """Raises UnsupportedType for a form or an image at a path that takes none."""
    kind, kinds = message.media_type, [takes.partition("/")[0] for takes in route.takes]
    if is_upload(message) and kind.partition("/")[0] not in kinds:
        raise UnsupportedType(
            f"{quoted(kind)} is not read at {route.path}, but at {azure.SCORE.path}; "
            f"send {', '.join(route.takes)}"
        )


def _by_model(
    model: ServedModel, route: Route, asked: Call, observer: Observer | None, call: Cancellation
) -> Steps[Answer]:
    """The model's answer, or its refusal. Does not raise."""
    try:
        embedder, identity = yield from model.enter(call)
    except Exception as error:
        return _failed(error, route.refuse)
    try:
        answer = yield from _answered(embedder, model, asked, observer, call)
    except Exception as error:
        answer = _failed(error, route.refuse)
    finally:
        model.leave()
    return answer.by(model.name, identity)


def _answered(
    embedder: Embedder,
    model: ServedModel,
    call: Call,
    observer: Observer | None,
    cancellation: Cancellation,
) -> Steps[Answer]:
    if call.dimension is not None and call.dimension != embedder.dimension:
        field, wanted = call.dimension_field, embedder.dimension
        raise BadField(
            f"{field!r} must be {wanted}, the length of this model's vectors: it was not trained "
            "for shorter ones",
            field,
        )
    most = embedder.settings.max_answer_bytes
    check_vectors(call.rows, embedder.dimension, call.number, most)
    records = yield from records_of(
        embedder, call.rows, call.params, cancellation, classify_texts=call.classify_texts
    )
    if observer:
        observer(call.rows, records)
    with pipeline_of(embedder).observer.timed("render"):
        return _bytes(Reply(200, call.render(records, model.facts)))


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


def _failed(error: Exception, shape: Refuse) -> Answer:
    """The response in whose place an error was raised."""
    if isinstance(error, RequestError):
        return refuse(error, shape)
    log.error("a request failed inside the model", exc_info=error)
    return problem(500, "internal_error", "the model failed; the server's log says why", shape)


def _bytes(reply: Reply) -> Answer:
    content = reply.content
    body = content.encode() if isinstance(content, str) else wire.dump(content)
    return Answer(reply.status, body, reply.kind)
