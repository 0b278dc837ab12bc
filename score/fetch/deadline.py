"""How long the download of one row may take. Knows nothing of HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from score.concurrency.cancellation import Cancellation
from score.concurrency.turns import FairCondition
from score.errors import FetchTimeout


class Deadline:
    """The time left to one row, and to the request it belongs to. Used by one thread."""

    def __init__(
        self,
        seconds: float,
        until: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        """`seconds` for the row; `until`: the `time.monotonic()` at which its request ends.

        `cancellation`: of the call that the row belongs to.
        """
        self.cancellation = cancellation or Cancellation()
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._until = until

    def left(self) -> float:
        """Seconds until the row or its request ends; negative afterwards."""
        end = self._end if self._until is None else min(self._end, self._until)
        return end - time.monotonic()

    def at_most(self, seconds: float) -> float:
        """A timeout of `seconds`, or shorter where the deadline is nearer.

        Raises FetchTimeout, Cancelled, RequestTimeout.
        """
        self.cancellation.check()
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

    def wait_for(self, condition: FairCondition, is_open: Callable[[], bool]) -> None:
        """Waits in our own queue, under the condition's lock, until `is_open()` in this row's turn.

        A row that comes while others wait goes behind them, open or not: whoever ends their wait
        ends this one's, too. `is_open` may wait itself, under the same lock and for a limited time.
        Raises FetchTimeout, Cancelled, RequestTimeout, and what `is_open` raises; the caller then
        passes the notification on, which this row may have had.
        """
        must_queue = condition.is_waited_for
        while must_queue or not is_open():
            must_queue = False
            with self.queueing():
                is_notified = condition.wait(self.cancellation, self.patience())
            self.cancellation.check()
            if not is_notified:
                raise self.over()
