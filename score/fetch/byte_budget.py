"""How many bytes of encoded images may be in memory at a time.

A download reserves its size before it reads its body, so that any number of downloads may wait for
a server's first byte while the bodies in memory stay bounded. A thread's reservations end with its
`holding` block, which is after the image has been decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from score.concurrency.forks import renewing
from score.fetch.deadline import Deadline


class ByteBudget:
    """A number of bytes that threads share."""

    def __init__(self, size: int) -> None:
        self._size = size
        renewing(self._renew)

    def _renew(self) -> None:
        self._free = self._size
        self._changed = threading.Condition()
        self._thread = _Thread()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Releases what this thread reserves inside when the outermost such block ends."""
        self._thread.depth += 1
        try:
            yield
        finally:
            self._thread.depth -= 1
            if not self._thread.depth:
                self.release(self._thread.reserved)

    def reserve(self, count: int, deadline: Deadline) -> None:
        """Waits until `count` bytes are free and reserves them.

        Raises FetchTimeout, Cancelled, RequestTimeout.
        """
        call = deadline.cancellation
        with call.interrupting(self._wake), self._changed:
            with deadline.queueing():
                self._changed.wait_for(
                    lambda: call.is_cancelled or count <= self._free, deadline.patience()
                )
            call.check()
            if count > self._free:
                raise deadline.over()
            self._free -= count
        self._thread.reserved += count

    def release(self, count: int) -> None:
        """Releases bytes that this thread has reserved."""
        with self._changed:
            self._free += count
            self._changed.notify_all()
        self._thread.reserved -= count

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Thread(threading.local):
    """Of one thread: how many `holding` blocks it is in, and the bytes reserved there."""

    depth = 0
    reserved = 0
