"""A request that is refused before any route sees it, and the response that says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from score.serve.refusals import problem, response


class Refusal(NamedTuple):
    """Status, code, message and headers of the response; seconds for `Retry-After`."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = {}
    retry_after: int | None = None


Check = Callable[[Scope], Refusal | None]
"""What is wrong with a request, by its method, path and headers."""


def _response(scope: Scope, refusal: Refusal) -> Response:
    status, code, message, headers, retry_after = refusal
    return response(problem(scope, status, code, message, retry_after), headers)


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
