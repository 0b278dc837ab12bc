"""Middleware: a body that comes too slowly is answered with a 408.

Each chunk must arrive within `body_timeout`, and the whole body must come with at least
`min_body_rate` after a first `body_timeout`: a client that sends a byte now and then holds nothing
for ever. When the server stops, bodies have half of `shutdown_timeout`.
"""

from __future__ import annotations

import asyncio
import math

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from score.serve.lifecycle import Lifecycle
from score.serve.refusals import refusal
from score.settings import Settings

_LOOK = 0.5  # seconds between looks at whether the server stops


class Pace:
    """The middleware. To the application a client that is given up has disconnected."""

    def __init__(self, app: ASGIApp, settings: Settings, lifecycle: Lifecycle) -> None:
        self._app, self._settings, self._lifecycle = app, settings, lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application; answers in its place if the body does not come."""
        body = _Body(receive, self._settings, self._lifecycle)
        started = False

        async def sends(message: Message) -> None:
            nonlocal started
            if started or not body.fault:
                started = True
                await send(message)

        try:
            await self._app(scope, body.receive, sends)
        except Exception:
            if started or not body.fault:
                raise
        if body.fault and not started:
            status, code, message = body.fault
            await refusal(scope, status, code, message)(scope, receive, send)


class _Body:
    """The body of one request as it arrives. fault: status, code, message, once it is given up."""

    def __init__(self, receive: Receive, settings: Settings, lifecycle: Lifecycle) -> None:
        self._receive, self._settings, self._lifecycle = receive, settings, lifecycle
        self._began = self._latest = asyncio.get_running_loop().time()
        self._bytes = 0
        self._complete = False
        self.fault: tuple[int, str, str] | None = None

    async def receive(self) -> Message:
        """The next message; a disconnect once the body is late."""
        if self._complete:
            return await self._receive()
        while self.fault is None:
            now = asyncio.get_running_loop().time()
            due = min(self._due(), self._lifecycle.bodies_until)
            try:
                async with asyncio.timeout(min(_LOOK, max(due - now, 0))):
                    return self._seen(await self._receive())
            except TimeoutError:
                self._judge()
        return {"type": "http.disconnect"}

    def _seen(self, message: Message) -> Message:
        self._latest = asyncio.get_running_loop().time()
        self._bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    def _due(self) -> float:
        """The loop's time at which the next bytes must be there."""
        rate, patience = self._settings.min_body_rate, self._settings.body_timeout
        credit = self._bytes / rate if rate else math.inf
        return patience + min(self._latest, self._began + credit)

    def _judge(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._lifecycle.bodies_until:
            self.fault = (503, "shutting_down", "the server stops before the body was complete")
        elif now >= self._due():
            self.fault = (408, "slow_client", "the request's body came too slowly")
