"""The server's own application: health, and the scoring application once the model is loaded.

    Traces(RequestLog(CORS(Guard(Service(health | Pace(scoring application))))))

`running` puts the traces and the request log, and `access` CORS and the check of keys, around it.
Health answers while the model is being loaded, while the server stops, and on surplus connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from score.dialects import table
from score.serve.connection import SURPLUS
from score.serve.lifecycle import Lifecycle
from score.serve.pace import Pace
from score.serve.refusals import problem, refusal, response
from score.settings import Settings

_STATES = {"loading": "the model is being loaded", "stopping": "the server is stopping"}

Check = Callable[[], Awaitable[str]]
"""What is wrong with the model; an empty string if nothing is."""


class Service:
    """The server's application. `loaded` gives it the application that scores."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._settings, self._lifecycle = settings, lifecycle
        self._scoring: ASGIApp | None = None
        self._check: Check | None = None
        answers = {"live": self._live, "ready": self._ready}
        self._health = {
            page.path: answers[page.probe] for page in table.OF_THE_SERVER if page.probe
        }

    def loaded(self, scoring: ASGIApp, check: Check) -> None:
        """From now on requests are answered."""
        self._scoring = Pace(scoring, self._settings, self._lifecycle)
        self._check = check
        self._lifecycle.loaded()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if self._lifecycle.state == "stopping":
            send = _closing(send)
        path = scope["path"]
        if health := self._health.get(path):
            scope["endpoint"] = health
            answer = await health() if scope["method"] in ("GET", "HEAD") else _only_get(scope)
            await answer(scope, receive, send)
        elif path in table.LIVE and self._scoring is None:
            await (await self._live())(scope, receive, send)
        elif path in table.READY and (reason := await self._why_not_ready()):
            await _unready({"status": "unavailable", "reason": reason})(scope, receive, send)
        elif self._scoring is None:
            await refusal(scope, 503, "loading", _STATES["loading"])(scope, receive, send)
        elif path not in table.PROBES and scope.get("state", {}).get(SURPLUS):
            message = "too many connections are open"
            await refusal(scope, 503, "too_many_connections", message)(scope, receive, send)
        else:
            await self._scoring(scope, receive, send)

    async def _live(self) -> Response:
        return JSONResponse({"status": "live"})

    async def _ready(self) -> Response:
        reason = await self._why_not_ready()
        if reason:
            return _unready({"status": "not ready", "reason": reason})
        return JSONResponse({"status": "ready"})

    async def _why_not_ready(self) -> str:
        if self._check is None or self._lifecycle.state != "serving":
            return _STATES[self._lifecycle.state]
        return await self._check()


def _unready(body: dict[str, str]) -> Response:
    return JSONResponse(body, 503)


def _only_get(scope: Scope) -> Response:
    message = f"{scope['method']} {scope['path']} is not served; GET it"
    return response(problem(scope, 405, "method_not_allowed", message), {"Allow": "GET"})


def _closing(send: Send) -> Send:
    """`send`, with a response that ends its connection."""

    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
        await send(message)

    return sends
