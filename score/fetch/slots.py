"""How many downloads run at a time, from all hosts together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from score.concurrency.cancellation import Cancellation
from score.concurrency.forks import renewing
from score.concurrency.turns import FairCondition
from score.fetch.deadline import Deadline


class Slots:
    """A number of slots that rows share, by turns of the calls they belong to."""

    def __init__(self, count: int) -> None:
        self._count = count
        renewing(self._renew)

    def _renew(self) -> None:
        self._free = self._count
        self._changed = FairCondition()

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[None]:
        """Waits for a slot and holds it. Raises FetchTimeout, Cancelled, RequestTimeout."""
        self._acquire(deadline)
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify()

    def _acquire(self, deadline: Deadline) -> None:
        call = deadline.cancellation
        with call.interrupting(partial(self._wake, call)), self._changed:
            try:
                deadline.wait_for(self._changed, lambda: self._free > 0)
                self._free -= 1
            finally:
                if self._free:  # passes the notification on to the next row
                    self._changed.notify()

    def _wake(self, call: Cancellation) -> None:
        with self._changed:
            self._changed.notify_owner(call)
