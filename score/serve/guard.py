"""A request that is refused before any route sees it, and the response that says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from score.core import endpoint


class Refusal(NamedTuple):
    """Status, code, message and headers of the response."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = {}


Check = Callable[[Scope], Refusal | None]
"""What is wrong with a request, by its method, path and headers."""

Shape = Callable[[Scope, Refusal], Response]
"""Makes the response to a refused request: a path may have an error format of its own."""


def plain(scope: Scope, refusal: Refusal) -> Response:
    """The refusal as `{"error": {"code", "message", "rows"}}`, like every error of `/score`."""
    answer = endpoint.problem(refusal.status, refusal.code, refusal.message)
    return Response(
        answer.body, answer.status, dict(refusal.headers), media_type="application/json"
    )


class Guard:
    """ASGI middleware: requests that a check refuses are answered, and their body is not read."""

    def __init__(self, app: ASGIApp, check: Check, shape: Shape = plain) -> None:
        self._app, self._check, self._shape = app, check, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        refusal = self._check(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await self._shape(scope, refusal)(scope, receive, send)
