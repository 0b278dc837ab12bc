"""`score serve`: the transport around the contract."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.support.images import SAMPLES, in_base64, random_image, served
from tests.support.surfaces import OwnServer

pytestmark = pytest.mark.process

TEXT = json.dumps({"input_data": {"columns": ["text"], "data": [["a cat"]]}}).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    own = OwnServer(
        SCORE_MAX_REQUEST_BYTES="200000",
        SCORE_MAX_REQUEST_ROWS="50",
        SCORE_REQUEST_DEADLINE="5",
    )
    try:
        own.wait()
        yield own
    finally:
        own.stop()


def address(server: OwnServer) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").removesuffix("/score").partition(":")
    return host, int(port)


def alive(server: OwnServer) -> bool:
    return server.post(TEXT).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/score", 405, "method_not_allowed"),
        ("PUT", "/score", 405, "method_not_allowed"),
        ("POST", "/ping", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/page/", 404, "not_found"),
        ("POST", "/predict", 404, "not_found"),
        ("POST", "/score/", 404, "not_found"),
        ("GET", "/ping/", 404, "not_found"),
    ],
)
def test_what_is_not_served_is_told_in_json(
    server: OwnServer, method: str, path: str, status: int, code: str
) -> None:
    url = server.url.removesuffix("/score") + path
    response = requests.request(method, url, timeout=10, allow_redirects=False)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


def test_ping(server: OwnServer) -> None:
    response = requests.get(server.url.replace("/score", "/ping"), timeout=10)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_the_answer_is_strict_json_of_its_type(server: OwnServer) -> None:
    response = server.post(TEXT)
    assert response.headers["Content-Type"] == "application/json"

    def fail(constant: str) -> None:
        raise AssertionError(constant)

    (record,) = json.loads(response.content, parse_constant=fail)
    assert all(type(value) is float for value in record["text_features"])


def test_the_content_type_does_not_matter(server: OwnServer) -> None:
    assert requests.post(server.url, data=TEXT, timeout=10).status_code == 200


def test_a_large_body_is_refused_before_it_is_read(server: OwnServer) -> None:
    with socket.create_connection(address(server), timeout=10) as sock:
        sock.sendall(
            b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n{"
        )
        assert b" 413 " in sock.recv(4096)
    assert alive(server)


def test_a_large_body_without_a_length_is_refused_too(server: OwnServer) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    try:
        response = requests.post(server.url, data=chunks(), timeout=20)
        assert response.status_code == 413
    except requests.ConnectionError:
        pass  # refused while still being sent
    assert alive(server)


def test_too_many_rows(server: OwnServer) -> None:
    body = {"input_data": {"columns": ["text"], "data": [["a"]] * 51}}
    response = server.post(json.dumps(body).encode())
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"nonsense\r\n\r\n",
        b"POST /score HTTP/1.1\r\n",
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n{",
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /score HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 20_000,
    ],
)
def test_clients_that_go_away_or_speak_nonsense_do_no_harm(server: OwnServer, sent: bytes) -> None:
    for _ in range(3):
        with (
            socket.create_connection(address(server), timeout=10) as sock,
            contextlib.suppress(ConnectionError),
        ):
            sock.sendall(sent)
    assert alive(server)


def test_many_clients_get_their_own_answers(server: OwnServer) -> None:
    def ask(number: int) -> Any:
        image = in_base64(random_image(number, (32, 32))) if number % 2 else ""
        data = [[image, f"text {number}"]]
        body = {"input_data": {"columns": ["image", "text"], "data": data}}
        response = server.post(json.dumps(body).encode())
        assert response.status_code == 200
        return response.json()[0]

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(16) as pool:
        for number, record in enumerate(pool.map(ask, [n % 8 for n in range(64)])):
            wanted = alone[number % 8]
            assert set(record) == set(wanted)
            for name, vector in wanted.items():
                largest = max(map(abs, vector))
                apart = max(abs(a - b) for a, b in zip(record[name], vector, strict=True))
                assert apart <= 1e-5 * largest


def test_a_slow_image_does_not_hold_up_other_requests(server: OwnServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never.png"
        body = {"input_data": {"columns": ["image"], "data": [[url]]}}
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(server.post, json.dumps(body).encode())
            time.sleep(0.3)
            assert alive(server)
            assert not waiting.done()
            silent.close()
            assert waiting.result(timeout=60).status_code == 422


def test_a_request_of_many_hanging_images_ends(server: OwnServer) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never.png"
        data = [["", "a cat"], *[[url, ""]] * 40]
        table = {"columns": ["image", "text"], "data": data}
        body = json.dumps({"input_data": table, "params": {"on_error": "report"}}).encode()
        began = time.monotonic()
        records = server.post(body).json()
        assert time.monotonic() - began < 20
    assert set(records[0]) == {"text_features"}
    errors = [record["error"] for record in records[1:]]
    # Of a host inside nobody learns that it is silent; the others' turns never came.
    assert {error["code"] for error in errors} <= {"fetch_failed", "fetch_timeout"}
    assert all(error["retryable"] for error in errors)


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_a_terminated_server_finishes_what_it_began(arguments: tuple[str, ...]) -> None:
    own = OwnServer(arguments=arguments)
    try:
        own.wait()
        with served(SAMPLES / "images") as url, ThreadPoolExecutor(1) as pool:
            data = [[f"{url}/house.jpg"]] * 40
            body = json.dumps({"input_data": {"columns": ["image"], "data": data}}).encode()
            answer = pool.submit(own.post, body)
            time.sleep(0.1)
            own._process.send_signal(signal.SIGTERM)
            try:
                assert answer.result(timeout=60).status_code == 200
            except requests.ConnectionError:
                pytest.skip("the request came after the signal")
        own._process.wait(30)
    finally:
        if own._process.poll() is None:
            own.stop()
