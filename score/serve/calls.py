"""Runs requests on threads, and gives up those whose client is gone or whose time is over.

Theory of operation. A request is answered by a thread, which nothing can stop from outside. So each
has a Cancellation: one task for all requests looks four times a second which connections have been
closed, and cancels their calls; the thread finds that out wherever it waits, and ends. Requests
that are answered sooner than that cost it nothing.

No request waits for a thread. There are more threads than requests that the core takes on at a
time, so that the core's refusals are quick, too; a request that finds none free is refused here, as
is one whose body does not fit beside the others in memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from anyio import CapacityLimiter, sleep, to_thread
from starlette.requests import Request

from score.core import endpoint
from score.core.admission import overloaded
from score.core.endpoint import Answer
from score.dialects.base import Refuse
from score.errors import RequestError
from score.fetch.cancellation import Cancellation
from score.settings import Settings

TIMEOUT = "X-Request-Timeout"
"""The header by which a client says for how many seconds it will wait."""

_INTERVAL = 0.25  # seconds between two looks at the connections
_SPARE_THREADS = 64  # for requests that the core refuses

Work = Callable[[Cancellation], Answer]
"""Answers a request, on a thread. Must not raise."""


class Calls:
    """The requests of a server. For one event loop."""

    def __init__(self, settings: Settings) -> None:
        """By `max_pending_requests`, `max_pending_bytes` and `request_timeout`."""
        requests = settings.max_pending_requests
        self._threads = CapacityLimiter(requests + _SPARE_THREADS if requests else math.inf)
        self._most_bytes = settings.max_pending_bytes or math.inf
        self._most_seconds = settings.request_timeout
        self._bytes = 0
        self._running: dict[Cancellation, Request] = {}
        self._watching: asyncio.Task[None] | None = None

    async def answered(self, request: Request, size: int, work: Work, shape: Refuse) -> Answer:
        """What `work` answers to a request whose body of `size` bytes has been read.

        `shape`: the errors of its dialect. A client that goes away is answered for the log's sake:
        status 499.
        """
        try:
            call = Cancellation(self._seconds(request.headers.get(TIMEOUT)))
            self._check(size)
        except RequestError as error:
            return endpoint.refuse(error, shape)
        self._bytes += size
        try:
            return await self._run(request, call, work)
        finally:
            self._bytes -= size

    def _check(self, size: int) -> None:
        if not self._threads.available_tokens:
            raise overloaded("all threads of the server are busy", 1)
        if self._bytes and self._bytes + size > self._most_bytes:
            raise overloaded("the bodies of the requests under way fill max_pending_bytes", 1)

    async def _run(self, request: Request, call: Cancellation, work: Work) -> Answer:
        self._running[call] = request
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            return await to_thread.run_sync(work, call, limiter=self._threads)
        finally:
            del self._running[call]

    async def _watch(self) -> None:
        """Cancels the calls whose clients have closed their connections, until none runs."""
        while self._running:
            await sleep(_INTERVAL)
            for call, request in list(self._running.items()):
                if await request.is_disconnected():
                    call.cancel()

    def _seconds(self, header: str | None) -> float:
        """Seconds that a request may take; 0 for no limit. Raises RequestError."""
        if header is None:
            return self._most_seconds
        try:
            seconds = float(header)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise RequestError(
                f"the header {TIMEOUT} must be a number of seconds, not {header[:40]!r}"
            )
        return min(seconds, self._most_seconds or math.inf)
