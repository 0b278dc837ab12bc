"""A server whose memory, time and probe are watched while it answers a request. Linux alone: it
reads `/proc`.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.memory import forget_peak, memory
from tests.support.surfaces import OwnServer

MIB = 2**20
MEMORY = 100 * MIB  # of a request, beyond the server before it, and its answer
KEPT = 200 * MIB  # beyond the server at its start: what allocators keep between requests
TIMES = 8  # a larger request's size, where that is more than MEMORY
SECONDS = 2.0  # of a core, for each MiB that was sent
PROBE = 0.1  # seconds

_ANSWER_MEMORY = 3  # times an answer's size: its vectors as numbers, and as text, in pieces
_ANSWER_SECONDS = 0.5 / MIB  # of a core for a byte of an answer: a row has 10 KiB
_SHARED = 2.0  # times as much a core takes for the same while others use its other half
_TRIES = 5  # of a request that seems to take too long: another process may have had the machine


@dataclass(frozen=True)
class Sent:
    """A request. chunk: bytes of a chunk; 0 for a body that declares its length."""

    path: str
    kind: str
    body: bytes
    chunk: int = 0
    headers: int = 0

    def __repr__(self) -> str:
        shown = self.body if len(self.body) < 400 else self.body[:200] + b" ... " + self.body[-100:]
        about = f"{self.kind}, {len(self.body):,} bytes, chunk={self.chunk}, headers={self.headers}"
        return f"Sent({self.path[:80]}, {about}, {shown!r})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Hypothesis would print the whole body."""
        printer.text(repr(self))

    def bytes(self) -> bytes:
        """As HTTP."""
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"Content-Type: {self.kind}", *(f"X-{n}: y" for n in range(self.headers))]
        if not self.chunk:
            lines.append(f"Content-Length: {len(self.body)}")
            return "\r\n".join([*lines, "", ""]).encode() + self.body
        head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
        chunks = (
            self.body[start : start + self.chunk] for start in range(0, len(self.body), self.chunk)
        )
        framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        return head + framed + b"0\r\n\r\n"


@dataclass(frozen=True)
class Cost:
    """What a request took: bytes of memory, seconds of a core, the slowest probe. kept: bytes that
    the server had kept of those before it. probe: seconds; busy: those that the server itself used
    of a processor during one at most, as long as a probe takes where nothing else runs."""

    status: int
    answer: int
    kept: int
    memory: int
    seconds: float
    probe: float
    busy: float


class Watched:
    """A server whose memory, time and probe are watched. Use it by `watched`."""

    def __init__(self, server: OwnServer, before: Iterable[Sent], room: float) -> None:
        """`before`: requests after which the server is as it is from then on. `room`: how many
        times as long as `PROBE` a probe may take, 1 on a machine that does nothing else."""
        url = urlsplit(server.url)
        self._address = (url.hostname or "", url.port or 0)
        self._pid = server.pid
        self._room = room
        self._slowest, self._busiest, self._stopped = 0.0, 0.0, False
        self._prober = threading.Thread(target=self._probe)
        self._prober.start()
        for request in before:
            self._answer(request)
        self.idle = memory(self._pid, "VmRSS")

    def close(self) -> None:
        """Ends the probes."""
        self._stopped = True
        self._prober.join()

    def cost(self, request: Sent) -> Cost:
        """Sends a request, and waits for its answer."""
        time.sleep(0.01)  # for a probe of its own
        forget_peak(self._pid)
        before = max(self.idle, memory(self._pid, "VmRSS"))
        began = self._cpu()
        self._slowest = self._busiest = 0.0
        status, answer = self._answer(request)
        time.sleep(0.01)
        grown, kept = memory(self._pid, "VmHWM") - before, before - self.idle
        seconds = self._cpu() - began
        return Cost(status, answer, kept, grown, seconds, self._slowest, self._busiest)

    def check(self, request: Sent) -> Cost:
        """Asserts the invariant."""
        for attempt in range(_TRIES):
            cost = self.cost(request)
            assert 200 <= cost.status < 500, (cost, request)
            size = len(request.bytes())
            most = max(MEMORY, TIMES * size) + _ANSWER_MEMORY * cost.answer
            assert cost.memory <= most, (cost, request)
            assert cost.kept <= KEPT, (cost, request)
            most_seconds = SECONDS * max(1.0, size / MIB) + _ANSWER_SECONDS * cost.answer
            most_seconds *= min(self._room, _SHARED)
            in_time = cost.probe <= self._room * PROBE and cost.busy <= PROBE
            if cost.seconds <= most_seconds and in_time:
                break
            assert attempt + 1 < _TRIES, (cost, request)
        return cost

    def _answer(self, request: Sent) -> tuple[int, int]:
        """Status and size of the answer; a status of 0 for none."""
        received: list[bytes] = []
        with socket.create_connection(self._address, timeout=120) as sock:
            with suppress(ConnectionError):  # refused before all of it is sent
                sock.sendall(request.bytes())
            with suppress(ConnectionError):
                while part := sock.recv(MIB):
                    received.append(part)
        answer = b"".join(received)
        return (int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0), len(answer)

    def _probe(self) -> None:
        client = http.client.HTTPConnection(*self._address, timeout=120)
        while not self._stopped:
            began, used = time.perf_counter(), self._cpu()
            try:
                client.request("GET", "/health/live")
                client.getresponse().read()
            except (OSError, http.client.HTTPException):  # an idle connection was closed
                client.close()
            seconds, used = time.perf_counter() - began, self._cpu() - used
            self._slowest = max(self._slowest, seconds)
            self._busiest = max(self._busiest, min(seconds, used))
            time.sleep(0.005)
        client.close()

    def _cpu(self) -> float:
        return time.clock_gettime(~self._pid << 3 | 2)  # its clock: clock_getcpuclockid


@contextmanager
def watched(before: Iterable[Sent], room: float = 1.0) -> Iterator[Watched]:
    """A server that is ended with the block. `before`, `room`: as of `Watched`."""
    server = OwnServer()
    try:
        server.wait()
        watch = Watched(server, before, room)
        try:
            yield watch
        finally:
            watch.close()
    finally:
        server.stop()
