"""Runs requests on threads, and gives up those whose client is gone or whose time is over.

Theory of operation. A request is answered by a thread, which nothing can stop from outside. So each
has a Cancellation: its connection cancels it when the client closes it, and so does the end of the
server; the thread finds that out wherever it waits, and ends.

No request waits for a thread. There are more threads than requests that the core takes on at a
time, so that the core's refusals are quick, too; a request that finds none free is refused here, as
is one whose body does not fit beside the others in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from score.core import endpoint
from score.core.admission import overloaded
from score.core.endpoint import Answer
from score.dialects.base import Refuse
from score.errors import RequestError
from score.fetch.cancellation import Cancellation
from score.serve.body import Bodies
from score.serve.connection import IF_LOST, IfLost
from score.settings import Settings

TIMEOUT = "X-Request-Timeout"
"""The header by which a client says for how many seconds it will wait."""

_SPARE_THREADS = 64  # for requests that the core refuses

Work = Callable[[bytes, Cancellation], Answer]
"""Answers a request with this body, on a thread. Must not raise."""


class Calls:
    """The requests of a server. For one event loop."""

    def __init__(self, settings: Settings) -> None:
        """By `max_pending_requests`, `request_timeout`, and the bounds on bodies."""
        requests = settings.max_pending_requests
        self._threads = CapacityLimiter(requests + _SPARE_THREADS if requests else math.inf)
        self._bodies = Bodies(settings)
        self._most_seconds = settings.request_timeout

    async def answered(self, request: Request, work: Work, shape: Refuse) -> Answer:
        """What `work` answers to a request, whose body is read here.

        `shape`: the errors of its dialect. A client that goes away is answered for the log's sake:
        status 499.
        """
        try:
            seconds = self._seconds(request.headers.get(TIMEOUT))
            self._check_threads()
            async with self._bodies.read(request) as body:
                self._check_threads()
                return await self._run(request, Cancellation(seconds), work, body)
        except RequestError as error:
            return endpoint.refuse(error, shape)

    def _check_threads(self) -> None:
        if not self._threads.available_tokens:
            raise overloaded("all threads of the server are busy", 1)

    async def _run(self, request: Request, call: Cancellation, work: Work, body: bytes) -> Answer:
        with _cancelled_if_lost(request, call):
            try:
                return await to_thread.run_sync(work, body, call, limiter=self._threads)
            except BaseException:  # the server stops, and has waited long enough
                call.cancel()
                raise

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


def _cancelled_if_lost(request: Request, call: Cancellation) -> AbstractContextManager[None]:
    """A block within which the end of the request's connection cancels its call."""
    if_lost: IfLost | None = request.scope.get("state", {}).get(IF_LOST)
    return if_lost(call.cancel) if if_lost else nullcontext()
