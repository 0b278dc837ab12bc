"""The load: HTTP/1.1 requests, prepared as bytes, from a process of its own.

A *closed* stream has clients that send their next request when they have the answer to the last. An
*open* one sends at a rate, whether or not earlier requests are answered, as long as it has
connections left.

Of an answer only the status and the length are read while requests are sent. No answer, and no
failure, ends a stream: each is an `Answer`, to be looked at afterwards.
"""

from __future__ import annotations

import asyncio
import gc
import math
import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from benchmarks import fixtures

GRACE = 60.0  # seconds for the last answers
_RECONNECT = 0.02  # seconds before a connection that was refused is tried again
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *\d+\r\n", re.IGNORECASE)

REFUSED, CUT, MALFORMED, UNANSWERED = "refused", "cut", "malformed", "unanswered"
"""Faults: no connection; one that ended before the answer was whole; no HTTP; no end in time."""
UNSENT = "unsent"
"""The fault of a request of an open stream all of whose connections were waiting for answers."""


@dataclass(frozen=True)
class Stream:
    """Requests that are sent in turn, over and over.

    clients: connections, of an open stream the most. rate: requests a second of an open stream; 0:
    closed. It goes on for `seconds` and until `most` requests are sent, and until all streams
    beside it have done theirs. keep: of every how manieth answer the body is kept; 0: of none.
    until_refused: it also ends when no connection is accepted any more.
    """

    port: int
    requests: Sequence[bytes]
    clients: int = 1
    rate: float = 0.0
    seconds: float = 0.0
    most: int = 0
    keep: int = 0
    until_refused: bool = False


class Answer(NamedTuple):
    """What came of a request.

    request: its number within the stream's. began, ended: by `time.monotonic`, which all processes
    share. status: 0 where there is a fault. client: the port of the client's end.
    """

    request: int
    began: float
    ended: float
    status: int
    fault: str = ""
    client: int = 0
    retry_after: bool = False
    body: bytes = b""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class _Head(NamedTuple):
    status: int
    length: int
    closes: bool
    retry_after: bool


_Outcome = tuple[_Head, bytes] | str
"""An answer's head and body, or the fault."""


class _Connection(asyncio.Protocol):
    """A connection with one request under way at most."""

    def __init__(self) -> None:
        self.client = 0
        self.is_open = False
        self._received = bytearray()
        self._head: _Head | None = None
        self._starts = 0  # of the body
        self._waiting: asyncio.Future[_Outcome] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True
        self.client = transport.get_extra_info("sockname")[1]

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._done(CUT)

    def ask(self, request: bytes) -> asyncio.Future[_Outcome]:
        """Sends a request."""
        self._received.clear()
        self._head = None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._head is None and not self._read_head():
            return
        assert self._head
        if len(self._received) >= self._starts + self._head.length:
            if self._head.closes:
                self.close()
            self._done((self._head, bytes(self._received[self._starts :])))

    def _read_head(self) -> bool:
        """Whether the head has arrived, and has all that an answer needs."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[: end + 2])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if not status or not length:
            self.close()
            self._done(MALFORMED)
            return False
        self._starts = end + 4
        closes, retry_after = _CLOSE.search(head), _RETRY_AFTER.search(head)
        self._head = _Head(int(status[1]), int(length[1]), bool(closes), bool(retry_after))
        return True

    def _done(self, outcome: _Outcome) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(outcome)

    def close(self) -> None:
        self.is_open = False
        self._transport.abort()


@dataclass
class _Sender:
    """Sends one stream. is_due: it has not sent its share yet."""

    stream: Stream
    others: Callable[[], bool]
    began: float = field(default_factory=time.monotonic)
    answers: list[Answer] = field(default_factory=list)
    refused: bool = False
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)
    sent: int = 0

    @property
    def is_due(self) -> bool:
        if self.refused and self.stream.until_refused:
            return False
        late = time.monotonic() < self.began + self.stream.seconds
        return late or self.sent < self.stream.most

    def _goes_on(self) -> bool:
        return not (self.refused and self.stream.until_refused) and (self.is_due or self.others())

    async def run(self) -> None:
        await (self._open() if self.stream.rate else self._closed())

    async def _closed(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.stream.clients)))

    async def _client(self) -> None:
        connection = _Connection()
        while self._goes_on():
            connection = await self._ask(connection, time.monotonic())
            if not connection.is_open and self.answers[-1].fault == REFUSED:
                await asyncio.sleep(_RECONNECT)
        if connection.is_open:
            connection.close()

    async def _open(self) -> None:
        idle = [_Connection() for _ in range(self.stream.clients)]
        tasks: set[asyncio.Task[None]] = set()
        for number in count():
            due = self.began + number / self.stream.rate
            if (pause := due - time.monotonic()) > 0 or number % 64 == 0:
                await asyncio.sleep(max(pause, 0))  # answers are read though it be behind its time
            if not self._goes_on():
                break
            if idle:
                task = asyncio.create_task(self._arrival(idle.pop(), idle))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                now = time.monotonic()
                self.answers.append(Answer(0, now, now, 0, UNSENT))
        await asyncio.gather(*tasks)
        for connection in idle:
            if connection.is_open:
                connection.close()

    async def _arrival(self, connection: _Connection, idle: list[_Connection]) -> None:
        idle.append(await self._ask(connection, time.monotonic()))

    async def _ask(self, connection: _Connection, began: float) -> _Connection:
        """Sends the next request; returns the connection that it was sent on."""
        number = next(self.numbers)
        self.sent = number + 1
        request = number % len(self.stream.requests)
        if not connection.is_open:
            try:
                connection = await _connected(self.stream.port)
            except (OSError, TimeoutError):
                self.refused = True
                self.answers.append(Answer(request, began, time.monotonic(), 0, REFUSED))
                return connection
        try:
            async with asyncio.timeout(max(GRACE, self.stream.seconds)):
                outcome = await connection.ask(self.stream.requests[request])
        except TimeoutError:
            outcome = UNANSWERED
            connection.close()
        self._note(number, request, began, connection.client, outcome)
        return connection

    def _note(
        self,
        number: int,
        request: int,
        began: float,
        client: int,
        outcome: _Outcome,
    ) -> None:
        now = time.monotonic()
        if isinstance(outcome, str):
            self.answers.append(Answer(request, began, now, 0, outcome, client))
            return
        head, body = outcome
        kept = self.stream.keep and number % self.stream.keep == 0
        body = self.bodies.setdefault(body, body) if kept else b""  # what repeats is held once
        self.answers.append(
            Answer(request, began, now, head.status, "", client, head.retry_after, body)
        )


async def _connected(port: int) -> _Connection:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(GRACE):
        _, connection = await loop.create_connection(_Connection, fixtures.HERE, port)
    return connection


async def _run(streams: Sequence[Stream]) -> list[list[Answer]]:
    senders: list[_Sender] = []

    def any_is_due() -> bool:
        return any(sender.is_due for sender in senders)

    senders += [_Sender(stream, any_is_due) for stream in streams]
    await asyncio.gather(*(sender.run() for sender in senders))
    return [sender.answers for sender in senders]


def send(streams: Sequence[Stream]) -> list[list[Answer]]:
    """Sends streams at the same time, in this process: the answers of each."""
    return asyncio.run(_run(streams))


class Load:
    """The process that sends."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def begin(self, *streams: Stream) -> Future[list[list[Answer]]]:
        """Sends beside whatever the caller does meanwhile."""
        return self._pool.submit(send, streams)

    def run(self, *streams: Stream) -> list[list[Answer]]:
        """Sends; returns the answers of each stream."""
        return self.begin(*streams).result()


@contextmanager
def load() -> Iterator[Load]:
    """A process for streams, one call after the other."""
    spawn = multiprocessing.get_context("spawn")  # no threads or files of this process
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=gc.disable) as pool:
        started = Load(pool)
        started.run()  # has started
        yield started


class Summary(NamedTuple):
    """Answers of status 200: how many a second, and milliseconds of p50, p95, p99."""

    rate: float
    p50: float
    p95: float
    p99: float


def summary(answers: Sequence[Answer], begin: float = 0.0, end: float = math.inf) -> Summary:
    """Of the answers that came between two times; not-a-number where none is a 200."""
    took = sorted(a.seconds for a in answers if a.status == 200 and begin <= a.ended < end)
    if not took:
        return Summary(0.0, math.nan, math.nan, math.nan)
    first = min(a.ended for a in answers) if begin == 0.0 else begin
    last = max(a.ended for a in answers) if end == math.inf else end
    cuts = (1000 * took[min(len(took) - 1, int(share * len(took)))] for share in (0.5, 0.95, 0.99))
    return Summary(len(took) / max(last - first, 1e-9), *cuts)
