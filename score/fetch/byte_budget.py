"""Memory for encoded images: how many bytes of them may be held at a time.

A download reserves its size before it reads its body, so that any number may wait for a server's
first byte while the bodies in memory stay bounded. What a thread has reserved is given back when
its `holding` block ends, which is after the image has been decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from score.fetch.deadline import Deadline


class Room:
    """A number of bytes that threads share."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()
        self._mine = _Mine()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What this thread reserves inside is held until the outermost such block ends."""
        self._mine.depth += 1
        try:
            yield
        finally:
            self._mine.depth -= 1
            if not self._mine.depth:
                self.release_free_memory(self._mine.held)

    def reserve(self, count: int, deadline: Deadline) -> None:
        """Waits until `count` bytes are free. Raises FetchTimeout."""
        with self._changed:
            with deadline.queueing():
                got = self._changed.wait_for(lambda: count <= self._free, deadline.patience())
            if not got:
                raise deadline.over()
            self._free -= count
        self._mine.held += count

    def release_free_memory(self, count: int) -> None:
        """Frees bytes that this thread has reserved."""
        with self._changed:
            self._free += count
            self._changed.notify_all()
        self._mine.held -= count


class _Mine(threading.local):
    depth = 0
    held = 0
