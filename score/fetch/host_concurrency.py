"""How many downloads run from one host at a time: more while it answers fast, fewer when it does
not (adaptive concurrency).

A host begins with START downloads at a time. As in TCP's congestion control (RFC 5681), each fast
answer adds one, until the host first sheds load; after that one is added per round of answers. An
answer that is slow for this host takes one away again, down to START. Shedding load (429, 503, a
timeout, a connection refused or broken off) halves the number, once per round. A `Retry-After`
pauses the host for every row: nothing is sent to it before then, or until a limit is reached. The
limit keeps one row's `Retry-After: 3600` from failing the thousands behind it. Since a pause costs
much more than a refusal alone, the number that led to it is not reached again for ten times as
long. Rows that wait for one of a host's slots get it by turns of the calls they belong to.

A host that does not answer at all has a circuit breaker (`circuit_breaker`), which holds for rows
of batch jobs alone: one client of a server must not keep others from a host.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from score.concurrency.cancellation import Cancellation
from score.concurrency.forks import renewing
from score.concurrency.turns import FairCondition
from score.errors import FetchFailed
from score.fetch.circuit_breaker import CircuitBreaker
from score.fetch.deadline import Deadline

START = 8
_SLOWER, _SLACK = 3.0, 0.1  # slow: more than three times the quickest answer and 0.1 s
_CEILING_FACTOR = (
    10  # × a pause: how long the number of downloads that led to it is not reached again
)
_KEPT = 1000  # hosts that are remembered
_FORGOTTEN = 60.0  # seconds without a download after which what is known of a host is dropped
_LATELY = 60.0  # seconds since a host's answer: longer than all of a stream's rows wait at default
_SILENCE = 1.0  # seconds without an answer from which on it is in doubt whether a host is up
_LOOK = 1.0  # seconds after which a row that waits for a host looks whether it holds others up

IsInTheWay = Callable[[], bool]
"""Of a batch job's row whose host is down: whether its waiting would hold up other hosts' rows."""

_now = time.monotonic


class Host:
    """The downloads from one host. Safe to share between threads."""

    def __init__(self, most: int, longest_pause: float = math.inf) -> None:
        self._most, self._longest_pause = most, longest_pause
        self._least_grown = float(min(START, most))
        self._limit = self._least_grown
        self._changed = FairCondition()
        self._active = 0
        self._has_shed = False
        self._shed_at = -math.inf
        self._paused_until = -math.inf
        self._ceiling, self._ceiling_until = most, -math.inf
        self._quickest = math.inf
        self._breaker = CircuitBreaker()
        self.heard = _now()  # when it last answered, or was first asked
        self.latest = -math.inf  # when it last answered, other than by a redirect
        # Set by Hosts: rows that wait or download, and since when there are none.
        self.users = 0
        self.idle_since = math.inf

    @property
    def limit(self) -> int:
        """Downloads that may run at a time now."""
        return int(self._limit)

    @contextmanager
    def slot(self, deadline: Deadline, is_in_the_way: IsInTheWay | None = None) -> Iterator[None]:
        """Waits for one of its slots and holds it. Raises FetchTimeout, FetchFailed, HostDown.

        A pause that the host asked for counts against the row's deadline, as does waiting for a
        host that is down; waiting for other rows' downloads does not. `is_in_the_way`: None for a
        row that asks the host even if it is down.
        """
        while (is_probe := self._enter(deadline, in_batch=is_in_the_way is not None)) is None:
            assert is_in_the_way
            self._wait_while_down(deadline, is_in_the_way)
        try:
            yield
        finally:
            with self._changed:
                if is_probe:
                    self._breaker.leave()
                self._active -= 1
                self._wake()

    def answered(self, began: float) -> None:
        """Reports an answer that did not shed load. `began`: `time.monotonic()` of its request."""
        seconds = _now() - began
        with self._changed:
            self._quickest = min(self._quickest, seconds)
            if seconds > _SLOWER * self._quickest + _SLACK:
                self._limit = min(self._limit, max(self._limit - 1, self._least_grown))
            elif self._active >= self.limit:  # else the limit was not tested
                step = 1 / self._limit if self._has_shed else 1.0
                most = self._ceiling if _now() < self._ceiling_until else self._most
                self._limit = max(self._limit, min(self._limit + step, most))
                self._wake()

    def shed(self, began: float, pause: float = 0.0) -> None:
        """Reports an answer that shed load, or none at all. `pause`: seconds that it asks for."""
        pause = min(pause, self._longest_pause)
        with self._changed:
            now = _now()
            if began >= self._shed_at:  # one halving for all that were sent together
                if pause:
                    self._ceiling = max(1, self.limit - 1)
                    self._ceiling_until = now + _CEILING_FACTOR * pause
                self._limit = max(1.0, self._limit / 2)
                self._shed_at = now
            self._has_shed = True
            self._paused_until = max(self._paused_until, now + pause)

    def succeeded(self, *, redirects: bool) -> None:
        """Reports a request that was answered to its end, however."""
        with self._changed:
            self.heard = _now()
            if not redirects:
                self.latest = self.heard
            if self._breaker.answered():
                self._changed.notify_all()

    def failed(self) -> None:
        """Reports a batch job's request that was not."""
        with self._changed:
            if self._breaker.failed(_now()):
                self._changed.notify_all()

    def _enter(self, deadline: Deadline, *, in_batch: bool) -> bool | None:
        """Waits for a slot and takes it; whether that is to try a host that is down. None where it
        is not to be asked."""

        def is_down() -> bool:
            return in_batch and not self._breaker.admits(_now())

        call = deadline.cancellation
        with call.interrupting(partial(self._wake_rows_of, call)), self._changed:
            if is_down():
                return None
            try:
                deadline.wait_for(self._changed, lambda: is_down() or self._open(deadline))
            except BaseException:
                self._pass_on()
                raise
            if is_down():
                self._pass_on()
                return None
            self._active += 1
            if in_batch and self._breaker.enter():
                self._changed.notify_all()  # those that queue look at the breaker again
                return True
            if self._active < self.limit:
                self._changed.notify()
            return False

    def _wait_while_down(self, deadline: Deadline, is_in_the_way: IsInTheWay) -> None:
        """Waits until the host may be asked, or for a moment. Raises HostDown."""
        with self._changed:
            now = _now()
            if self._breaker.admits(now):
                return
            if deadline.left() <= 0 or is_in_the_way():
                raise self._breaker.error(now)
            pause = min(self._breaker.left(now) or _LOOK, _LOOK)
        # Not by the condition: what wakes a row that waits for a slot must reach such a row.
        deadline.cancellation.sleep(min(pause, max(0.0, deadline.left())))

    def _open(self, deadline: Deadline) -> bool:
        """Waits for the end of a pause; whether a slot is free then. Raises FetchFailed."""
        while (pause := self._paused_until - _now()) > 0:
            if pause >= deadline.left():
                raise FetchFailed(
                    f"the server asked for no requests for another {pause:.0f} s", retryable=True
                )
            self._changed.wait(deadline.cancellation, pause)
            deadline.cancellation.check()
        return self._active < self.limit

    def _pass_on(self) -> None:
        """What woke a row that takes no slot reaches the next rows."""
        if self._active < self.limit:
            self._wake()

    def _wake(self) -> None:
        self._changed.notify(max(1, self.limit - self._active))

    def _wake_rows_of(self, call: Cancellation) -> None:
        with self._changed:
            self._changed.notify_owner(call)

    def is_forgettable(self) -> bool:
        """Whether it has been without users for `_FORGOTTEN` seconds."""
        return not self.users and _now() - self.idle_since >= _FORGOTTEN


class Hosts:
    """The hosts that are downloaded from, by name."""

    def __init__(self, most: int, longest_pause: float) -> None:
        """`most`: downloads from one host at a time, however fast it answers.

        `longest_pause`: seconds that a host's `Retry-After` holds for rows that it did not answer.
        """
        self._new = partial(Host, most, longest_pause)
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, Host] = {}

    @contextmanager
    def slot(self, name: str, deadline: Deadline, *, in_batch: bool = False) -> Iterator[Host]:
        """Waits for a slot at a host and holds it. Raises FetchTimeout, FetchFailed, HostDown.

        `in_batch`: the row may fail because the host has not answered others.
        """
        host = self._enter(name)
        try:
            with host.slot(deadline, partial(self._others_answer, host) if in_batch else None):
                yield host
        finally:
            with self._lock:
                host.users -= 1
                host.idle_since = _now()

    def limit(self, name: str) -> int:
        """Downloads from a host that may run at a time now."""
        with self._lock:
            return (self._hosts.get(name) or self._new()).limit

    def in_doubt(self) -> int:
        """Rows that wait for hosts that have not answered for a second."""
        since = _now() - _SILENCE
        with self._lock:
            return sum(host.users for host in self._hosts.values() if host.heard < since)

    def _others_answer(self, host: Host) -> bool:
        """Whether other hosts have answered lately."""
        since = _now() - _LATELY
        with self._lock:
            return any(each.latest > since for each in self._hosts.values() if each is not host)

    def _enter(self, name: str) -> Host:
        with self._lock:
            host = self._hosts.get(name)
            if host is None or host.is_forgettable():
                self._make_space()
                host = self._hosts[name] = self._new()
            host.users += 1
            return host

    def _make_space(self) -> None:
        if len(self._hosts) >= _KEPT:
            self._hosts = {name: host for name, host in self._hosts.items() if host.users}
