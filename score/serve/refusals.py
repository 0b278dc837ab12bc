"""Answers of the server itself, before or instead of the model's."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from score.core import endpoint
from score.core.endpoint import Answer
from score.dialects import table

FAILED = "the server failed; its log says why"
_PIECE = 2**18  # bytes of a body that are sent at a time
_RETRY_AFTER = 1  # seconds after which a request that was refused with 503 may be sent again


class _Pieces(Response):
    """A response whose body is sent piece by piece, as the client takes it: in one piece it would
    be copied three times before its first byte is sent, and the server answer nobody meanwhile."""

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = self.status_code, self.raw_headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = memoryview(self.body)
        for begin in range(0, len(body), _PIECE):
            piece = body[begin : begin + _PIECE]
            more = begin + _PIECE < len(body)
            await send({"type": "http.response.body", "body": bytes(piece), "more_body": more})


def response(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as a response."""
    kind = _Pieces if len(answer.body) > _PIECE else Response
    return kind(
        answer.body, answer.status, {**answer.headers, **(headers or {})}, media_type=answer.kind
    )


def problem(
    scope: Scope | None, status: int, code: str, message: str, retry_after: int | None = None
) -> Answer:
    """An error in the dialect of a request's path; `scope` is None where the path is not known.

    retry_after: seconds. A 503 says when to try again in any case.
    """
    shape = table.shape_of(scope["path"] if scope else "")
    if status == 503:
        retry_after = retry_after or _RETRY_AFTER
    return endpoint.problem(status, code, message, shape, retry_after)


def refusal(scope: Scope | None, status: int, code: str, message: str) -> Response:
    """A `problem` that ends the connection."""
    return response(problem(scope, status, code, message), {"Connection": "close"})
