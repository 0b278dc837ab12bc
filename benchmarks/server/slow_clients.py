"""Clients that send and servers that answer a byte now and then: what others notice of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks import fixtures
from benchmarks.server import payloads
from benchmarks.server.clients import Answer, Stream, summary
from benchmarks.server.context import Context, Line, Report

COUNT = 64  # connections of slow clients, and requests with images that come slowly
_STEP = 0.5  # seconds between two bytes
_HEADERS = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
_BODY = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"


def measure(context: Context, count: int = 500) -> Report:
    """Single texts of one client, without slow ones and beside them, on one server."""
    requests = payloads.singles(payloads.rows("texts", count, context.urls))
    deadline = str(min(30.0, max(1.0, context.seconds)))
    lines = []
    with (
        fixtures.image_server(thumbnails=True, drip=_STEP) as urls,
        context.serving(SCORE_ROW_DEADLINE=deadline, SCORE_READ_TIMEOUT="30") as server,
    ):
        texts = Stream(server.port, requests, seconds=context.seconds)
        context.load.run(texts)
        images = payloads.singles(payloads.rows("urls", COUNT, urls))
        dripping = Stream(server.port, images, COUNT, seconds=context.seconds)
        lines.append(_line("none", context.load.run(texts)[0]))
        with slow_clients(server.port, COUNT):
            lines.append(_line(f"{COUNT} connections", context.load.run(texts)[0]))
        lines.append(_line(f"{COUNT} images", context.load.run(texts, dripping)[0]))
        with slow_clients(server.port, COUNT):
            lines.append(_line("both", context.load.run(texts, dripping)[0]))
    for line in lines:
        line["p50 over none's"] = line["p50 ms"] / lines[0]["p50 ms"]
    return Report(lines, [f"{line}" for line in lines if line["other answers"]])


def _line(slow: str, answers: list[Answer]) -> Line:
    met = summary(answers)
    others = sum(answer.status != 200 for answer in answers)
    return {
        "slow": slow,
        "rows/s": met.rate,
        "p50 ms": met.p50,
        "p99 ms": met.p99,
        "other answers": others,
    }


@contextmanager
def slow_clients(port: int, count: int) -> Iterator[None]:
    """Connections with half a request, to which a byte is added now and then: to the headers of
    every other one, to the body of the rest. One that the server ends is opened again.
    """
    over = threading.Event()
    thread = threading.Thread(target=_send_slowly, args=[port, count, over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _send_slowly(port: int, count: int, over: threading.Event) -> None:
    connections: list[socket.socket | None] = [None] * count
    while not over.wait(_STEP):
        for number, connection in enumerate(connections):
            connections[number] = _another_byte(connection, port, number)
    for connection in connections:
        if connection:
            connection.close()


def _another_byte(connection: socket.socket | None, port: int, number: int) -> socket.socket | None:
    """The connection, or a new one in its place; None if there can be none now."""
    if connection:
        with suppress(OSError):
            connection.sendall(b"a")
            return connection
        connection.close()
    with suppress(OSError):
        opened = socket.create_connection((fixtures.HERE, port), timeout=1)
        opened.sendall(_HEADERS if number % 2 else _BODY)
        return opened
    return None
