"""The endpoint's front end, over real sockets, before containers that do as a test says."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest
from azure.ai.ml._utils._endpoint_utils import validate_response
from azure.ai.ml.exceptions import MlException
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from score.deploy.simulate.front import Front, Limits
from score.deploy.simulate.ports import free_port
from score.errors import AzureError

PLENTY = Limits(seconds=20, concurrency=4, instances=1)

Handle = Callable[[BaseHTTPRequestHandler, bytes], None]


class Container(ThreadingHTTPServer):
    """A server that answers as `handle` does, and remembers what it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handle: Handle) -> None:
        self.handle, self.seen = handle, []  # type: ignore[var-annotated]
        self.release = threading.Event()
        self.front: Front | None = None
        super().__init__(("127.0.0.1", 0), _Handler)

    def accepted(self, requests: int) -> bool:
        """Whether the front end has let so many in, and none has been answered."""
        assert self.front
        server = self.front._server
        return server.accepted._value == server.limits.most - requests

    def handle_error(self, request: object, client_address: object) -> None: ...


class _Handler(BaseHTTPRequestHandler):
    server: Container
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, dict(self.headers), body))
        self.server.handle(self, body)

    do_GET = do_HEAD = do_POST

    def log_message(self, format: str, *args: object) -> None: ...


def said(status: int, body: bytes = b"{}", **fields: str) -> Handle:
    def handle(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        for name, value in fields.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return handle


def echo(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    said(200, body)(handler, body)


def held(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Answers when it is released."""
    assert isinstance(handler.server, Container)
    handler.server.release.wait(30)
    echo(handler, body)


@contextlib.contextmanager
def fronted(
    handle: Handle, limits: Limits = PLENTY, key: str | None = None
) -> Iterator[tuple[int, Container]]:
    container = Container(handle)
    threading.Thread(target=container.serve_forever, args=(0.05,), daemon=True).start()
    port = free_port()
    front = container.front = Front(port, container.server_address[1], limits, key)
    try:
        with front.serving():
            yield port, container
    finally:
        container.release.set()
        front.close()
        container.shutdown()
        container.server_close()


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    content: bytes


def ask(
    port: int,
    body: bytes = b"{}",
    method: str = "POST",
    path: str = "/score",
    **headers: str,
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def eventually(true: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- what the container says ---------------------------------------------------------------------


def test_an_answer_goes_through() -> None:
    with fronted(said(200, b"[1]", Content_Type="application/json", X_Own="mine")) as (port, made):
        answer = ask(port, b"asked", path="/score?verbose=1", content_type="application/json")
        assert (answer.status, answer.content) == (200, b"[1]")
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Own"] == "mine"
        assert answer.headers["ms-azureml-model-error-statuscode"] is None
        path, headers, body = made.seen[0]
        assert (path, body) == ("/score?verbose=1", b"asked")
        assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [204, 302, 400, 404, 413, 422, 500, 503])
def test_what_is_not_200_is_424_with_the_containers_status_and_body(status: int) -> None:
    body = b"" if status == 204 else json.dumps({"error": {"code": "bad_rows"}}).encode()
    with fronted(said(status, body, Content_Type="application/json")) as (port, _):
        answer = ask(port)
        assert answer.status == 424
        assert answer.headers["ms-azureml-model-error-statuscode"] == str(status)
        assert answer.headers["ms-azureml-model-error-reason"] == "model_error"
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.content == body


def test_a_head_has_no_body_and_keeps_the_connection() -> None:
    with (
        fronted(said(200, b"12345")) as (port, _),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
    ):
        for method, body in (("HEAD", b""), ("GET", b"12345"), ("POST", b"12345")):
            connection.request(method, "/")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, body)


def test_a_large_answer_in_chunks_comes_whole() -> None:
    def chunked(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"%x\r\n%s\r\n" % (100_000, b"x" * 100_000))
        handler.wfile.write(b"0\r\n\r\n")

    with fronted(chunked) as (port, _):
        answer = ask(port)
        assert answer.status == 200
        assert answer.content == b"x" * 10_000_000


# -- what a client sends -------------------------------------------------------------------------


def test_large_bodies_with_and_without_a_length() -> None:
    large = bytes(range(256)) * 100_000
    with fronted(echo) as (port, made):
        assert ask(port, large).content == large
        pieces = (large[start : start + 50_000] for start in range(0, len(large), 50_000))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("POST", "/score", pieces, encode_chunked=True)
            assert connection.getresponse().read() == large
        assert made.seen[1][1]["Content-Length"] == str(len(large))


def test_a_client_that_asks_whether_to_go_on_is_told_to() -> None:
    with fronted(echo) as (port, made), socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert "Expect" not in made.seen[0][1]


def test_requests_in_one_go_are_answered_in_turn() -> None:
    one = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    with fronted(echo) as (port, _), socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"".join(one + b"%d" % number for number in range(5)))
        stream = client.makefile("rb")
        for number in range(5):
            assert stream.readline().startswith(b"HTTP/1.1 200")
            while (line := stream.readline()) != b"\r\n":
                assert line
            assert stream.read(1) == b"%d" % number


@pytest.mark.parametrize(
    "head", [b"Content-Length: x", b"Content-Length: -1", b"Transfer-Encoding: chunked"]
)
def test_a_body_that_cannot_be_read_is_refused(head: bytes) -> None:
    with fronted(echo) as (port, made), socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\nzz\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert not made.seen


def test_requests_are_traced_as_documented() -> None:
    """https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints"""
    with fronted(said(422, X_Request_Id="the container's")) as (port, made):
        mine = "run 7/é!_row-" + "9" * 50
        answer = ask(port, x_request_id="no GUID", x_ms_client_request_id=mine)
        headers = made.seen[0][1]
        assert headers["x-ms-client-request-id"] == ("run7_row-" + "9" * 50)[:40]
        assert uuid.UUID(headers["x-request-id"])
        assert answer.headers.get_all("x-request-id") == [headers["x-request-id"]]


# -- keys ----------------------------------------------------------------------------------------


def test_a_key_is_asked_for() -> None:
    with fronted(echo, key="secret") as (port, made):
        for given in ("", "secret", "Bearer", "Bearer secreT", "Basic secret", "Bearer sécret"):
            headers = {"Authorization": given.encode().decode("latin-1")} if given else {}
            assert ask(port, **headers).status == 401
        assert not made.seen
        assert ask(port, Authorization="Bearer secret").status == 200


# -- how many, how long --------------------------------------------------------------------------


def test_more_than_twice_the_concurrency_are_too_many() -> None:
    with fronted(held, Limits(20, 2, 2)) as (port, made), ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(ask, port) for _ in range(8)]
        # Two are in the container; the six that wait count, too.
        eventually(lambda: len(made.seen) == 2 and made.accepted(8))
        refused = ask(port)
        assert refused.headers["ms-azureml-model-error-reason"] == "too_many_pending_request"
        assert refused.headers["ms-azureml-model-error-statuscode"] is None
        assert len(made.seen) == 2
        made.release.set()
        assert [future.result().status for future in waiting] == [200] * 8
        assert ask(port).status == 200


def test_a_slow_container_is_a_408_and_its_place_is_free_again() -> None:
    with fronted(held, Limits(0.3, 1, 1)) as (port, made):
        began = time.monotonic()
        answer = ask(port)
        assert answer.status == 408
        assert 0.25 < time.monotonic() - began < 5
        assert answer.headers["ms-azureml-model-error-statuscode"] is None
        made.release.set()
        assert ask(port).status == 200


def test_an_answer_that_drips_is_a_408() -> None:
    def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    with fronted(drip, Limits(0.5, 1, 1)) as (port, _):
        assert ask(port).status == 408


def test_the_wait_for_a_place_counts() -> None:
    with fronted(held, Limits(0.5, 1, 1)) as (port, made), ThreadPoolExecutor(2) as pool:
        both = [pool.submit(ask, port) for _ in range(2)]
        assert [future.result().status for future in both] == [408, 408]
        eventually(lambda: made.seen)


@pytest.mark.parametrize("working", [True, False])
def test_a_client_that_goes_away_gives_its_place_to_others(working: bool) -> None:
    """Whether the container works on its request, or it waits for a place."""
    with fronted(held, Limits(20, 1, 1)) as (port, made), ThreadPoolExecutor(4) as pool:

        def other() -> Future[Answer]:
            return pool.submit(ask, port)

        before = [] if working else [other()]
        eventually(lambda: made.accepted(len(before)) and len(made.seen) == len(before))
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\ngone")
            eventually(lambda: made.accepted(len(before) + 1))
            eventually(lambda: len(made.seen) == 1)
        eventually(lambda: made.accepted(len(before)))
        after = [other() for _ in range(2 - len(before))]
        eventually(lambda: made.accepted(2))
        made.release.set()
        assert [future.result().status for future in before + after] == [200, 200]
        assert (b"gone" in [body for *_, body in made.seen]) == working


def test_many_clients_at_a_time() -> None:
    with fronted(echo, Limits(20, 8, 8)) as (port, _), ThreadPoolExecutor(64) as pool:
        bodies = [b"%d" % number * 1000 for number in range(500)]
        answers = list(pool.map(lambda body: ask(port, body), bodies))
        assert [answer.content for answer in answers] == bodies
        assert {answer.status for answer in answers} == {200}


# -- containers that are ill ---------------------------------------------------------------------


def test_a_dead_container_is_a_424_of_503() -> None:
    port, gone = free_port(), free_port()
    front = Front(port, gone, Limits(5, 1, 1))
    with front.serving():
        answer = ask(port)
        assert answer.status == 424
        assert answer.headers["ms-azureml-model-error-statuscode"] == "503"
    front.close()


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"?\r\n"]
)
def test_a_container_that_breaks_off_is_a_424_of_502(sent: bytes) -> None:
    def broken(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.wfile.write(sent)
        handler.close_connection = True

    with fronted(broken) as (port, _):
        answer = ask(port)
        assert answer.status == 424
        assert answer.headers["ms-azureml-model-error-statuscode"] == "502"


def test_a_container_that_refuses_a_body_unread_is_heard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\n{}")
                client.shutdown(socket.SHUT_WR)
                time.sleep(0.5)

        threading.Thread(target=refuse, daemon=True).start()
        port = free_port()
        front = Front(port, listener.getsockname()[1], Limits(20, 1, 1))
        with front.serving():
            answer = ask(port, b"x" * 30_000_000)
            assert answer.status == 424
            assert answer.headers["ms-azureml-model-error-statuscode"] == "413"
        front.close()


# -- its own port --------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"^port {port}: Address already in use; choose another with --port$"
        with pytest.raises(AzureError, match=said):
            Front(port, 1, Limits(1, 1, 1))


def test_of_two_that_start_at_once_the_second_is_told() -> None:
    port = free_port()
    first, second = (Front(port, 1, PLENTY) for _ in range(2))
    with (
        contextlib.closing(first),
        contextlib.closing(second),
        first.serving(),
        pytest.raises(
            AzureError, match=f"^port {port}: Address already in use; choose another with --port$"
        ),
        second.serving(),
    ):
        raise AssertionError("both serve")


def test_connections_are_refused_until_it_serves() -> None:
    port = free_port()
    front = Front(port, 1, Limits(1, 1, 1))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    front.close()


# -- what Azure's SDK and CLI make of it ---------------------------------------------------------


def invoke(port: int) -> None:
    """As `az ml online-endpoint invoke` posts a request and judges the answer."""
    address = f"http://127.0.0.1:{port}"
    with PipelineClient(address) as client:
        validate_response(client.send_request(HttpRequest("POST", f"{address}/score", json={})))


def test_the_sdk_shows_what_the_container_refused() -> None:
    message = "1 of 2 rows failed: row 1, image: no image"
    body = json.dumps({"error": {"code": "bad_rows", "message": message, "rows": []}}).encode()
    with (
        fronted(said(422, body, Content_Type="application/json")) as (port, _),
        pytest.raises(HttpResponseError) as caught,
    ):
        invoke(port)
    assert caught.value.status_code == 424
    assert f"(bad_rows) {message}" in str(caught.value)
    assert caught.value.response
    assert caught.value.response.headers["ms-azureml-model-error-statuscode"] == "422"


def test_the_sdk_shows_a_timeout() -> None:
    with (
        fronted(held, Limits(0.2, 1, 1)) as (port, _),
        pytest.raises(MlException, match=r"^upstream request timeout$"),
    ):
        invoke(port)
