"""Runs requests, and gives up those whose client is gone or whose time is over.

Theory of operation. A small request, of a few texts, is answered by the event loop itself, which
runs others while it waits for its pass; any other is, or goes on, on a thread, which nothing can
stop from outside. So each has a Cancellation: its connection cancels it when the client closes it,
and so does the end of the server; the request finds that out wherever it waits, and ends.

No request waits for a thread. There are as many threads as requests that the core takes on at a
time. A request that finds none free is refused here, before its body is parsed: under overload most
requests are refused, and what that costs the others lack. So is one whose body does not fit beside
the others in memory.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context

from starlette.requests import Request

from score.concurrency.cancellation import Cancellation
from score.concurrency.steps import Steps, Wait, on_this_thread
from score.core import endpoint
from score.core.admission import overloaded, too_many_requests
from score.core.bodies import Bodies
from score.core.endpoint import Answer
from score.dialects.base import Refuse
from score.errors import RequestError
from score.serve import body
from score.serve.connection import IF_LOST, IfLost
from score.serve.wakes import Wakes
from score.settings import Settings
from score.wording.quoting import quoted

TIMEOUT = "X-Request-Timeout"
"""The header by which a client says for how many seconds it will wait."""

Work = Callable[[bytes, Cancellation], Steps[Answer]]
"""Answers a request with this body. Must not raise."""

_SMALL = 4096  # bytes of a body that is parsed in a millisecond


class Calls:
    """The requests of a server. For one event loop."""

    def __init__(self, settings: Settings) -> None:
        """By `max_pending_requests`, `request_timeout`, and the bounds on bodies."""
        self._most = settings.max_pending_requests or sys.maxsize
        self._threads = ThreadPoolExecutor(self._most, "request")
        self._wakes = Wakes()
        self._running = 0
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
            with self._bodies.one(request.headers.get("content-length")) as arriving:
                content = await body.read(request, arriving)
                self._check_threads()
                call = Cancellation(seconds)
                return await self._run(request, call, work, content)
        except RequestError as error:
            return endpoint.refuse(error, shape)

    def _check_threads(self) -> None:
        if self._running >= self._most:
            raise overloaded(too_many_requests(self._most), 1)

    async def _run(
        self, request: Request, call: Cancellation, work: Work, content: bytes
    ) -> Answer:
        steps = work(content, call)
        self._running += 1
        with _cancelled_if_lost(request, call):
            try:
                if len(content) <= _SMALL:
                    return await self._on_the_loop(steps, call)
                return await self._on_a_thread(steps)
            except BaseException:  # the server stops, and has waited long enough
                call.cancel()
                raise
            finally:
                self._running -= 1

    async def _on_the_loop(self, steps: Steps[Answer], call: Cancellation) -> Answer:
        try:
            while isinstance(step := next(steps), Wait):
                await self._wakes.wait(step)
        except StopIteration as end:
            answer: Answer = end.value
            return answer
        except BaseException:
            call.cancel()  # before the steps end: no pass tells a loop that is closed
            steps.close()
            raise
        return await self._on_a_thread(steps)

    async def _on_a_thread(self, steps: Steps[Answer]) -> Answer:
        loop, context = asyncio.get_running_loop(), copy_context()
        return await loop.run_in_executor(self._threads, context.run, on_this_thread, steps)

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
                f"the header {TIMEOUT} must be a number of seconds, not {quoted(header, 40)}"
            )
        return min(seconds, self._most_seconds or math.inf)


def _cancelled_if_lost(request: Request, call: Cancellation) -> AbstractContextManager[None]:
    """A block within which the end of the request's connection cancels its call."""
    if_lost: IfLost | None = request.scope.get("state", {}).get(IF_LOST)
    return if_lost(call.cancel) if if_lost else nullcontext()
