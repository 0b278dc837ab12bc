"""The bodies of requests: bounded each, and all together. Knows no web framework."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread

from score.concurrency.forks import renewing
from score.contract.limits import check_body_size
from score.core.admission import overloaded
from score.hardware.processor import release_free_memory
from score.settings import Settings

_LARGE = 8 * 2**20  # bytes


class Bodies:
    """The memory of all bodies that arrive or are answered. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """By `max_request_bytes` and `max_pending_bytes`."""
        self._most_of_one = settings.max_request_bytes
        self._most = settings.max_pending_bytes or math.inf
        renewing(self._renew)

    def _renew(self) -> None:
        self._bytes = 0
        self._lock = Lock()

    @contextmanager
    def one(self, declared: str | None) -> Iterator[Body]:
        """A block in which a body is read and answered. `declared`: its header `Content-Length`.

        Raises RequestTooLarge and Overloaded by what is declared.
        """
        body = Body(self)
        body.check(int(declared) if declared and declared.isdecimal() else 0)
        try:
            yield body
        finally:
            self.give_back(body.size)
            if body.size > _LARGE:  # glibc would keep what its cells took
                Thread(target=release_free_memory, name="release", daemon=True).start()

    def take(self, counted: int, declared: int, more: int) -> None:
        """Counts `more` bytes of a body, of which `counted` are counted already, where one of
        `declared` bytes may be read. Raises RequestTooLarge and Overloaded."""
        check_body_size(declared, self._most_of_one)
        with self._lock:
            others = self._bytes - counted
            if others > 0 and others + declared > self._most:
                raise overloaded("the bodies of the requests under way fill max_pending_bytes", 1)
            self._bytes += more

    def give_back(self, size: int) -> None:
        """So many bytes are not held any more. (Not below 0: they may be those of a fork.)"""
        with self._lock:
            self._bytes = max(0, self._bytes - size)


class Body:
    """A body that arrives. size: bytes of it that have arrived."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    def check(self, size: int) -> None:
        """Raises RequestTooLarge and Overloaded for a body of `size` bytes."""
        self._bodies.take(self.size, size, 0)

    def add(self, size: int) -> None:
        """So many bytes more have arrived. Raises RequestTooLarge and Overloaded."""
        self._bodies.take(self.size, self.size + size, size)
        self.size += size
