"""Whose turn is next: one item of each owner in turn, an owner's own in the order they came.

An owner that has a thousand items does not keep one that has a single item waiting: the latter's is
at most as many items away as there are owners. Owners are calls here, items their waiting rows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from score.concurrency.forks import renewing

T = TypeVar("T")


class Turns(Generic[T]):
    """Items that wait, by owner. Not thread-safe by itself."""

    def __init__(self) -> None:
        # The owner whose turn is next comes first. A dictionary of items, since it is ordered and
        # removes any item at once.
        self._waiting: OrderedDict[Hashable, dict[T, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, owner: Hashable, item: T) -> None:
        """Appends an item to its owner's."""
        self._waiting.setdefault(owner, {})[item] = None

    def next(self) -> T | None:
        """Removes and returns the item whose turn it is; None where none waits."""
        if not self._waiting:
            return None
        owner, items = next(iter(self._waiting.items()))
        item = next(iter(items))
        self._waiting.move_to_end(owner)
        self.remove(owner, item)
        return item

    def leave(self, owner: Hashable) -> list[T]:
        """Removes and returns all items of an owner."""
        return list(self._waiting.pop(owner, ()))

    def remove(self, owner: Hashable, item: T) -> bool:
        """Removes an item; returns whether it still waited."""
        items = self._waiting.get(owner, {})
        waited = item in items
        items.pop(item, None)
        if not items:
            self._waiting.pop(owner, None)
        return waited


class FairCondition:
    """A condition (`threading.Condition`) whose waiting threads are notified by turns.

    Used as `with condition:`, in which alone its methods may be called.
    """

    def __init__(self) -> None:
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._turns: Turns[threading.Condition] = Turns()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def is_waited_for(self) -> bool:
        """Whether any thread waits that has not been notified."""
        return bool(self._turns)

    def wait(self, owner: Hashable, timeout: float | None = None) -> bool:
        """Waits to be notified; returns False after `timeout` seconds without."""
        thread = threading.Condition(self._lock)
        self._turns.add(owner, thread)
        try:
            thread.wait(timeout)
        finally:
            is_late = self._turns.remove(owner, thread)
        return not is_late

    def notify(self, count: int = 1) -> None:
        """Notifies the `count` threads whose turn is next."""
        for _ in range(count):
            if not (thread := self._turns.next()):
                return
            thread.notify()

    def notify_all(self) -> None:
        """Notifies all waiting threads."""
        while thread := self._turns.next():
            thread.notify()

    def notify_owner(self, owner: Hashable) -> None:
        """Notifies all waiting threads of an owner, out of turn."""
        for thread in self._turns.leave(owner):
            thread.notify()


class _Job(Generic[T]):
    """What a FairExecutor runs, and what comes of it."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute = compute
        self.future: Future[T] = Future()

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._compute()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class FairExecutor:
    """Runs the jobs of many owners on a few threads, by turns. Safe to share between threads."""

    def __init__(self, threads: int, name: str) -> None:
        """`threads`: jobs that run at a time."""
        self._threads, self._name = threads, name
        renewing(self._renew)

    def _renew(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads, self._name)
        self._lock = threading.Lock()
        self._turns: Turns[_Job[Any]] = Turns()

    def submit(self, owner: Hashable, compute: Callable[[], T]) -> Future[T]:
        """The result of `compute`, once it is its turn. A future that is cancelled before then
        leaves the queue at once."""
        job = _Job(compute)
        with self._lock:
            self._turns.add(owner, job)
        job.future.add_done_callback(lambda _: self._forget(owner, job))
        # A thread that is free takes whichever job's turn it is then, not this one.
        self._pool.submit(self._run_next)
        return job.future

    def _run_next(self) -> None:
        with self._lock:
            job = self._turns.next()
        if job:
            job.run()

    def _forget(self, owner: Hashable, job: _Job[Any]) -> None:
        with self._lock:
            self._turns.remove(owner, job)
