"""How long the download of one row may take. Knows nothing of HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from score.errors import FetchTimeout


class Deadline:
    """The time left to one row, and to the request it belongs to. Used by one thread."""

    def __init__(self, seconds: float, until: float | None = None) -> None:
        """`seconds` for the row; `until`: the `time.monotonic()` at which its request ends."""
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._until = until

    def left(self) -> float:
        """Seconds until the row or its request ends; negative afterwards."""
        end = self._end if self._until is None else min(self._end, self._until)
        return end - time.monotonic()

    def at_most(self, seconds: float) -> float:
        """A timeout of `seconds`, or shorter where the deadline is nearer. Raises FetchTimeout."""
        left = self.left()
        if left <= 0:
            raise self.over()
        return min(seconds, left)

    def over(self) -> FetchTimeout:
        """The error of a row whose deadline has passed."""
        if self._until is not None and time.monotonic() >= self._until:
            return FetchTimeout("the request's time for downloads was over before its turn came")
        return FetchTimeout(f"took more than {self._seconds:g} s in all")

    def patience(self) -> float | None:
        """Seconds that the row may wait in a queue: until its request ends; None: without end."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    @contextmanager
    def queueing(self) -> Iterator[None]:
        """Moves the row's deadline on by the time spent inside; the request's stays.

        For waits in our own queues, for which the server is not to blame.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - began

    @contextmanager
    def slot(self, slots: threading.Semaphore) -> Iterator[None]:
        """Waits for one of `slots` and holds it. Raises FetchTimeout."""
        with self.queueing():
            is_free = slots.acquire(timeout=self.patience())
        if not is_free:
            raise self.over()
        try:
            yield
        finally:
            slots.release()
