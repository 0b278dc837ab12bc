"""Host name → addresses, within a deadline.

Theory of operation. The rows of a table name few hosts, and many rows at a time the same one. So a
look-up that is under way is shared by all rows that need it, and its answer is kept: addresses for
30 s, the word that a name has none for 5 s. A resolver that could not tell is asked again by the
next row, and so is one that has not answered within a row's patience. Addresses at which nobody can
be connected to are forgotten at once (`forget`), since a host may have moved.

What is kept here opens no door: a connection is judged by the very address that it is opened to
(`connections`), be that a second or half a minute old.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from score.concurrency.forks import renewing
from score.errors import FetchTimeout
from score.fetch import urls
from score.fetch.deadline import Deadline

Address = tuple[Any, ...]
"""As `socket.getaddrinfo` has them: family, kind, protocol, name, (address, port, …)."""

FRESH = 30.0  # seconds that addresses are kept
_ABSENT = 5.0  # seconds that the lack of an address is kept
_MOST = 4096  # names that are kept, the latest

_NO_ADDRESS = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
"""The resolver's word that there is no address. All else is that it cannot tell at the moment."""

_now = time.monotonic


class NoAddress(Exception):
    """A name without an address. is_temporary: the resolver could not tell at the moment."""

    def __init__(self, host: str, *, is_temporary: bool) -> None:
        super().__init__(f"no address for {urls.start(host, 80)}")
        self.is_temporary = is_temporary


def literal(host: str) -> str | None:
    """The address that a host spells out, in whichever way (`0x7f.1`), without an IPv6 zone, which
    this machine may not have; None for a name.

    Not by `getaddrinfo`: it lets other threads run, and one that does so all the time, for a
    moment, keeps all others waiting.
    """
    plain = host.partition("%")[0]
    try:
        if ":" in plain:
            return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, plain))
        return socket.inet_ntoa(socket.inet_aton(plain))
    except (OSError, ValueError):
        return None


class _Answer(NamedTuple):
    """Of the resolver. is_temporary: of an answer without addresses, as of NoAddress."""

    addresses: list[Address]
    is_temporary: bool = False

    @property
    def kept(self) -> float:
        """Seconds that it may be given to others."""
        if self.addresses:
            return FRESH
        return 0.0 if self.is_temporary else _ABSENT


class _LookUp(NamedTuple):
    """until: when the next row asks anew."""

    answer: Future[_Answer]
    until: float


class LookUps:
    """Looks names up for many rows. Safe to share between threads."""

    def __init__(self) -> None:
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], _LookUp] = {}

    def addresses(self, host: str, port: int, deadline: Deadline, patience: float) -> list[Address]:
        """Where a host is, waited for `patience` seconds at most, and not beyond the deadline.

        Raises NoAddress, FetchTimeout, Cancelled, RequestTimeout.
        """
        timeout = deadline.at_most(patience)
        future = self._look_up(host, port, patience)
        if not future.done():
            _wait(future, host, timeout, deadline)
        answer = future.result()
        if not answer.addresses:
            raise NoAddress(host, is_temporary=answer.is_temporary)
        return answer.addresses

    def forget(self, host: str, port: int) -> None:
        """Has a host looked up anew by the next row: its addresses lead nowhere."""
        with self._lock:
            self._known.pop((host, port), None)

    def _look_up(self, host: str, port: int, patience: float) -> Future[_Answer]:
        """The latest that is of use still, or a new one."""
        key = host, port
        with self._lock:
            known = self._known.get(key)
            if known and _now() < known.until:
                return known.answer
            future: Future[_Answer] = Future()
            look_up = partial(self._ask, key, future)
            # Of its own, and abandoned where it takes too long: getaddrinfo has no timeout.
            try:
                threading.Thread(target=look_up, name="look-up", daemon=True).start()
            except RuntimeError:  # there are too many; the next row asks anew
                future.set_result(_Answer([], is_temporary=True))
                return future
            self._keep(key, _LookUp(future, _now() + patience))
            return future

    def _ask(self, key: tuple[str, int], future: Future[_Answer]) -> None:
        answer = _asked(*key)
        with self._lock:
            latest = self._known.get(key)
            # The failure of a look-up that others have given up says less than a later answer.
            if answer.addresses or (latest and latest.answer is future):
                self._keep(key, _LookUp(future, _now() + answer.kept))
        future.set_result(answer)

    def _keep(self, key: tuple[str, int], look_up: _LookUp) -> None:
        self._known.pop(key, None)  # the latest are last
        self._known[key] = look_up
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]


def _asked(host: str, port: int) -> _Answer:
    try:
        return _Answer(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        return _Answer([], is_temporary=error.errno not in _NO_ADDRESS)
    except ValueError:  # a name that IDNA cannot spell
        return _Answer([])


def _wait(future: Future[_Answer], host: str, timeout: float, deadline: Deadline) -> None:
    """Until a look-up is over. Raises FetchTimeout, Cancelled, RequestTimeout."""
    call = deadline.cancellation
    # No SimpleQueue, whose `get` may forget its timeout on a machine that is busy.
    box: queue.Queue[object] = queue.Queue()
    future.add_done_callback(box.put)
    try:
        with call.interrupting(partial(box.put, None)):
            box.get(timeout=timeout)
    except queue.Empty:
        raise FetchTimeout(f"looking up {urls.start(host, 80)} took too long") from None
    call.check()
