"""How long requests to each host take: which hosts a job waits for."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

from score.concurrency.forks import renewing
from score.errors import BadUrl, BlockedHost

_KEPT = 10_000  # hosts; of more, those that took longest


class HostTime(NamedTuple):
    """Requests to one host. seconds: of all, from the connection to the body's end. longest: the
    seconds of one."""

    requests: int
    seconds: float
    longest: float

    def plus(self, other: HostTime) -> HostTime:
        """Of the requests of both."""
        requests, seconds = self.requests + other.requests, self.seconds + other.seconds
        return HostTime(requests, seconds, max(self.longest, other.longest))


class HostTimes:
    """Adds up the times of requests. Safe to share between threads."""

    def __init__(self) -> None:
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._times = dict[str, HostTime]()

    @contextmanager
    def timed(self, host: str) -> Iterator[None]:
        """Counts what is done inside as one request, unless it turns out that nobody was asked."""
        began, is_asked = monotonic(), True
        try:
            yield
        except (BadUrl, BlockedHost):
            is_asked = False
            raise
        finally:
            if is_asked:
                self._add(host, monotonic() - began)

    def take(self, most: int) -> dict[str, HostTime]:
        """The hosts that took longest since the last call of this."""
        with self._lock:
            times, self._times = self._times, {}
        return longest(times, most)

    def _add(self, host: str, seconds: float) -> None:
        new = HostTime(1, seconds, seconds)
        with self._lock:
            known = self._times.get(host)
            self._times[host] = known.plus(new) if known else new
            if len(self._times) > _KEPT:
                self._times = longest(self._times, _KEPT // 2)


def merged(*times: Mapping[str, HostTime]) -> dict[str, HostTime]:
    """Of all requests together."""
    whole = dict[str, HostTime]()
    for some in times:
        for host, time in some.items():
            whole[host] = whole[host].plus(time) if host in whole else time
    return whole


def longest(times: Mapping[str, HostTime], most: int) -> dict[str, HostTime]:
    """The hosts that took longest in all, the first one most."""
    return dict(heapq.nlargest(most, times.items(), key=lambda item: item[1].seconds))
