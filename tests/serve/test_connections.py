"""What clients may leave undone: headers, bodies, reading, connections without requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import cast

import pytest
import requests
from starlette.types import Message

from score.core.embedder import Embedder
from score.core.endpoint import Answer
from score.dialects import table
from score.serve import connection
from score.serve.lifecycle import Lifecycle
from score.serve.pace import _Body
from score.serve.refusals import response
from score.settings import Settings
from tests.support.in_process import GIVE_UP, Running, rest, serving, until

pytestmark = pytest.mark.process

HEAD = b"POST /score HTTP/1.1\r\nHost: localhost\r\n"
TEXT = json.dumps({"input_data": [{"text": "a cat"}]}).encode()


@pytest.fixture(scope="module")
def server(embedder: Embedder) -> Iterator[Running]:
    short = {"header_timeout": 0.5, "body_timeout": 0.5, "keep_alive_timeout": 0.5}
    with serving(embedder, **short) as server:
        yield server


def alive(server: Running) -> bool:
    return requests.post(f"{server.url}/score", data=TEXT, timeout=60).status_code == 200


def trickle(sock: socket.socket, data: bytes) -> None:
    """Sends the same few bytes now and then, until the server answers or ends the connection."""
    give_up = time.monotonic() + GIVE_UP
    sock.settimeout(0.1)
    with contextlib.suppress(ConnectionError):
        while True:
            assert time.monotonic() < give_up
            sock.sendall(data)
            with contextlib.suppress(TimeoutError):
                sock.recv(1, socket.MSG_PEEK)
                break
    sock.settimeout(GIVE_UP)


def error(answer: bytes) -> tuple[int, str]:
    """Status and code of a raw answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: " in head.lower()
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_the_event_loop_does_not_depend_on_what_else_is_installed(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", ModuleType("uvloop"))
    with serving(embedder) as server:
        assert alive(server)


def test_answers_do_not_wait_for_acknowledgements(server: Running) -> None:
    with server.connect():
        until(lambda: server.connections)
        (accepted,) = server.server.server_state.connections
        kept = cast("connection.Connection", accepted).transport.get_extra_info("socket")
        assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_head_and_body_of_an_answer_are_sent_together(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    with serving(embedder) as server, server.connect() as sock:
        until(lambda: server.connections)
        (accepted,) = server.server.server_state.connections
        transport = cast("connection.Connection", accepted).transport
        write = transport.write
        monkeypatch.setattr(transport, "write", lambda data: (written.append(data), write(data)))
        for _ in range(2):
            sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: sock.recv(4096, socket.MSG_PEEK).endswith(b"}"))
            sock.recv(4096)
    first, second = [data for data in written if data]
    for data in (first, second):
        assert data.startswith(b"HTTP/1.1 200")
        assert data.endswith(b'{"status":"live"}')


@pytest.mark.parametrize("begun", [b"P", HEAD, HEAD + b"Content-Length: 5\r\n"])
def test_headers_that_stop_are_given_up(server: Running, begun: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(begun)
        assert error(rest(sock)) == (408, "slow_client")


def test_headers_that_trickle_are_given_up(server: Running) -> None:
    with server.connect() as sock:
        sock.sendall(HEAD)
        trickle(sock, b"a: b\r\n")
        assert error(rest(sock)) == (408, "slow_client")


def test_the_next_requests_headers_are_given_up_too(server: Running) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: sock.recv(4096, socket.MSG_PEEK).endswith(b"}"))
        sock.recv(4096)
        sock.sendall(HEAD)
        assert error(rest(sock)) == (408, "slow_client")


def test_a_connection_without_a_request_is_closed(server: Running) -> None:
    with server.connect() as sock:
        assert rest(sock) == b""


def test_an_idle_connection_is_closed(server: Running) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert rest(sock).endswith(b'{"status":"live"}')


@pytest.mark.parametrize("length", [b"Content-Length: 50", b"Transfer-Encoding: chunked"])
def test_a_body_that_stops_is_given_up(server: Running, length: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(HEAD + length + b"\r\n\r\n")
        sock.sendall(b"1\r\n{\r\n" if b"chunked" in length else b"{")
        assert error(rest(sock)) == (408, "slow_client")


def test_a_body_that_trickles_is_given_up(server: Running) -> None:
    with server.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        trickle(sock, b" ")
        assert error(rest(sock)) == (408, "slow_client")


@pytest.mark.parametrize(("received", "due"), [(0, 10), (1000, 20), (100_000, 110)])
def test_bytes_of_a_body_earn_it_time(received: int, due: float) -> None:
    async def none() -> Message:
        return {}

    async def body_due() -> float:
        body = _Body(none, Settings(body_timeout=10, min_body_rate=100), Lifecycle())
        body._began, body._latest, body._bytes = 0.0, 100.0, received
        return body._due()

    assert asyncio.run(body_due()) == due


def test_a_slow_body_is_answered(embedder: Embedder) -> None:
    with serving(embedder) as server, server.connect() as sock:
        sock.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(TEXT))
        for start in range(0, len(TEXT), 10):
            sock.sendall(TEXT[start : start + 10])
            time.sleep(0.3)
        assert rest(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("size", "count", "status"), [(1, 40_000, 400), (1, 5_000, 200), (64, 40_000, 200)]
)
def test_a_body_of_many_small_chunks_is_refused(
    embedder: Embedder, size: int, count: int, status: int
) -> None:
    """A chunk of one byte costs as much as one of a kilobyte."""
    body = TEXT.ljust(size * count)
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with serving(embedder) as server, server.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)
        answer = rest(sock)
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert (b"chunks of less than 64 bytes" in answer) == (status == 400)


def test_the_rest_of_a_refused_body_does_not_keep_a_connection(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER", 0.2)
    with serving(embedder) as server, server.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: 9999999999\r\n\r\n")
        assert b" 413 " in sock.recv(4096, socket.MSG_PEEK)
        until(lambda: not server.connections)


def test_a_client_that_sends_the_rest_of_a_refused_body_and_no_more_is_given_up(
    server: Running,
) -> None:
    with server.connect() as sock:
        sock.sendall(HEAD.replace(b"POST", b"PUT") + b"Content-Length: 10\r\n\r\n")
        until(lambda: b"method_not_allowed" in sock.recv(4096, socket.MSG_PEEK))
        sock.sendall(b"x" * 10)
        until(lambda: not server.connections)


@contextlib.contextmanager
def downloading(server: Running) -> Iterator[socket.socket]:
    """A connection on which a request waits for an image that does not come."""
    with socket.create_server(("127.0.0.1", 0)) as hanging, server.connect() as sock:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/never.png"
        body = json.dumps({"input_data": [{"image": url}]}).encode()
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        with hanging.accept()[0]:
            yield sock


def test_what_a_client_sends_before_its_answer_is_not_stored(embedder: Embedder) -> None:
    with serving(embedder) as server, downloading(server) as sock:
        (held,) = server.server.server_state.connections
        sock.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while len(held.conn.trailing_data[0]) < 2**21:  # type: ignore[union-attr]
                sock.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        assert len(held.conn.trailing_data[0]) < 2**21  # type: ignore[union-attr]


@contextlib.contextmanager
def asking_for(rows: int, server: Running, buffer: int) -> Iterator[socket.socket]:
    """A client that has asked for so many vectors, with room for so many bytes of the answer."""
    body = json.dumps({"input_data": [{"text": "a cat"}] * rows}).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        yield sock


def test_a_client_that_does_not_read_is_given_up(server: Running) -> None:
    with asking_for(3000, server, 4096):
        until(lambda: server.connections == 1)
        until(lambda: not server.connections)


def test_a_client_that_reads_slowly_gets_its_whole_answer(server: Running) -> None:
    """It is sent piece by piece: what the server has still to send does not become less."""
    with asking_for(2000, server, 65536) as sock:
        received = bytearray()
        while piece := sock.recv(65536):
            received += piece
            time.sleep(0.005)
            if received.endswith(b"}]"):
                break
    assert len(json.loads(received.partition(b"\r\n\r\n")[2])) == 2000


def test_large_answers_are_sent_in_pieces() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    answer = Answer(200, bytes(range(256)) * 4096)
    asyncio.run(response(answer)({"type": "http"}, None, send))  # type: ignore[arg-type]
    bodies = [message["body"] for message in sent[1:]]
    assert b"".join(bodies) == answer.body
    assert max(map(len, bodies)) <= 2**18
    assert [message["more_body"] for message in sent[1:]] == [True, True, True, False]


def test_many_idle_connections_do_no_harm(server: Running) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(100)]
        for sock in socks[::2]:
            sock.sendall(HEAD)
        assert alive(server)
        until(lambda: not server.connections)
        assert [error(rest(sock))[0] for sock in socks[::2]] == [408] * 50
        assert all(rest(sock) == b"" for sock in socks[1::2])


def test_surplus_connections_get_a_503(embedder: Embedder) -> None:
    with serving(embedder, max_connections=2, header_timeout=60) as server:
        with server.connect(), server.connect():
            until(lambda: server.connections == 2)
            refused = requests.post(f"{server.url}/score", data=TEXT, timeout=60)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "too_many_connections"
            assert (refused.headers["Retry-After"], refused.headers["Connection"]) == ("1", "close")
            for path in ("/health/live", "/health/ready", *table.LIVE, *table.READY):
                assert requests.get(server.url + path, timeout=60).status_code in (200, 204)
        until(lambda: not server.connections)
        assert alive(server)


def test_far_more_connections_are_closed_at_once(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SPARE", 1)
    with (
        serving(embedder, max_connections=1, header_timeout=60) as server,
        server.connect(),
        server.connect(),
        server.connect() as third,
    ):
        assert rest(third) == b""
        assert server.connections == 2


def test_what_is_no_http_is_told_in_json(server: Running) -> None:
    with server.connect() as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        assert error(rest(sock)) == (400, "bad_request")
