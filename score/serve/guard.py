"""A request that is refused before any route sees it, and the response that says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from score.core import endpoint
from score.dialects import table
from score.serve.refusals import response


class Refusal(NamedTuple):
    """Status, code, message and headers of the response."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = {}


Check = Callable[[Scope], Refusal | None]
"""What is wrong with a request, by its method, path and headers."""


def _response(scope: Scope, refusal: Refusal) -> Response:
    """The refusal in the dialect of the request's path."""
    shape = table.shape_of(scope["path"])
    answer = endpoint.problem(refusal.status, refusal.code, refusal.message, shape)
    return response(answer, refusal.headers)


class Guard:
    """ASGI middleware: requests that a check refuses are answered, and their body is not read."""

    def __init__(self, app: ASGIApp, check: Check) -> None:
        self._app, self._check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        refusal = self._check(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _response(scope, refusal)(scope, receive, send)
