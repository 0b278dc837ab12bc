"""Waits of an event loop for futures that other threads complete.

A pass completes the futures of all requests that shared it, one right after the other. Each wake of
the loop is a system call, at which the thread that computes lets go of Python's lock, and gets it
back only once the loop has handled what it has been woken for. So there is one for all of them.
"""

from __future__ import annotations

import asyncio
from queue import SimpleQueue

from score.concurrency.steps import Wait


class Wakes:
    """The waits of one event loop."""

    def __init__(self) -> None:
        self._over: SimpleQueue[asyncio.Future[None]] = SimpleQueue()
        self._is_woken = False

    async def wait(self, wait: Wait) -> None:
        """Waits, as `Wait.block` does."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        wait.future.add_done_callback(lambda _: self._wake(loop, over))
        timer = loop.call_later(wait.seconds, _end, over) if wait.seconds is not None else None
        try:
            await over
        finally:
            if timer:
                timer.cancel()

    def _wake(self, loop: asyncio.AbstractEventLoop, over: asyncio.Future[None]) -> None:
        """From any thread."""
        self._over.put(over)
        if not self._is_woken:  # two threads at once: two wakes do no harm
            self._is_woken = True
            loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        self._is_woken = False  # before the look: what comes after it wakes the loop again
        while not self._over.empty():
            _end(self._over.get_nowait())


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
