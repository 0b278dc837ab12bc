"""What ends a call early: its client is gone, or its time is over.

Theory of operation. One call carries one Cancellation, from the surface that received it to every
place where one of the call's threads waits: for a socket, a slot, bytes of a budget, a decoder, a
forward pass. Such a place says how it is interrupted (`interrupting`): a socket is shut down, a
condition notified, a future cancelled. `cancel` sets the reason and interrupts all of them; a
thread that is interrupted finds the reason by `check`, which raises it.

A deadline needs no timer. The thread that waits for the call as a whole never waits for longer than
`left` seconds, and cancels the call when they are over. All other threads find the deadline by
`check`.

Interrupts run under the lock of the cancellation, so that none runs after its `interrupting` block
has ended, when the socket may serve another call. So no other lock may be held where such a block
begins or ends.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from score.concurrency.forks import renewing
from score.errors import Cancelled, RequestError, RequestTimeout


class Cancellation:
    """Ends one call, from any thread: `Embedder.answer` raises Cancelled or RequestTimeout then."""

    def __init__(self, seconds: float = 0) -> None:
        """`seconds`: after which the call has timed out; 0 for no such limit."""
        self._end, self._seconds = math.inf, 0.0
        self._reason: RequestError | None = None
        self._process = os.getpid()
        renewing(self._renew)
        self.limit(seconds)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        # What would be interrupted in a forked process, sockets say, is the parent's.
        self._interrupts: dict[Callable[[], object], int] = {}  # → how many blocks
        if os.getpid() != self._process:
            self._reason = Cancelled("it was begun before this process was forked: call again")

    def limit(self, seconds: float) -> None:
        """Lets the call time out in `seconds`, unless it does so earlier; 0 changes nothing."""
        end = time.monotonic() + seconds
        if seconds and end < self._end:
            self._end, self._seconds = end, seconds

    def cancel(self) -> None:
        """Ends the call: the client is gone. Does nothing to a call that has ended already."""
        self._cancel(Cancelled("the call was cancelled before it was answered"))

    def expire(self) -> None:
        """Ends the call as one that has timed out."""
        self._cancel(self._timeout())

    @property
    def is_cancelled(self) -> bool:
        """Whether the call has been ended, or its time is over."""
        return self._reason is not None or time.monotonic() >= self._end

    @property
    def left(self) -> float | None:
        """Seconds until the call times out, at least 0; None without such a limit. No more than
        threads can wait."""
        if self._end == math.inf:
            return None
        return min(max(0.0, self._end - time.monotonic()), threading.TIMEOUT_MAX)

    def check(self) -> None:
        """Raises Cancelled or RequestTimeout if the call has ended."""
        if self.is_cancelled:
            reason = self._reason or self._timeout()
            raise type(reason)(*reason.args)  # each thread its own: tracebacks grow

    def interrupting(self, interrupt: Callable[[], object]) -> AbstractContextManager[None]:
        """A block that waits for something. `interrupt` makes the wait end at once, and must
        neither block nor raise.

        Where the call ends, an error that the block raises is taken for a consequence of that.
        Raises as `check`.
        """
        return _Interruptible(self, interrupt)

    def sleep(self, seconds: float) -> None:
        """Waits. Raises as `check`."""
        over = threading.Event()
        with self.interrupting(over.set):
            over.wait(seconds)
        self.check()

    def _add(self, interrupt: Callable[[], object]) -> None:
        with self._lock:
            self._interrupts[interrupt] = self._interrupts.get(interrupt, 0) + 1

    def _remove(self, interrupt: Callable[[], object]) -> None:
        with self._lock:
            blocks = self._interrupts.pop(interrupt, 0) - 1  # none in a process forked meanwhile
            if blocks > 0:
                self._interrupts[interrupt] = blocks

    def _cancel(self, reason: RequestError) -> None:
        with self._lock:
            if self._reason is None:
                self._reason = reason
                for interrupt in self._interrupts:
                    interrupt()

    def _timeout(self) -> RequestTimeout:
        return RequestTimeout(f"the request was not answered within {self._seconds:g} s")


class _Interruptible:
    """A block of `Cancellation.interrupting`. No generator, which takes twice as long: a download
    has eleven."""

    __slots__ = ("_call", "_interrupt")

    def __init__(self, call: Cancellation, interrupt: Callable[[], object]) -> None:
        self._call, self._interrupt = call, interrupt

    def __enter__(self) -> None:
        self._call._add(self._interrupt)
        try:
            self._call.check()
        except BaseException:
            self._call._remove(self._interrupt)
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._call._remove(self._interrupt)
        if kind is not None and issubclass(kind, Exception):
            self._call.check()
