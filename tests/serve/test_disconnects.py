"""Clients that go away, and requests whose time is over: what they began is given up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.support.hostile import Server
from tests.support.surfaces import OwnServer

pytestmark = pytest.mark.process

TEXT = {"input_data": {"columns": ["text"], "data": [["a cat"]]}}


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    own = OwnServer(SCORE_ROW_DEADLINE="60", SCORE_READ_TIMEOUT="60", SCORE_REQUEST_TIMEOUT="30")
    try:
        own.wait()
        yield own
    finally:
        own.stop()


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 25  # less than the request's timeout
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def of_urls(*urls: str) -> Any:
    return {"input_data": {"columns": ["image"], "data": [[url] for url in urls]}}


def sent(server: OwnServer, body: Any) -> socket.socket:
    """A connection on which a request was sent, whose answer nobody reads."""
    sock = connected(server)
    data = json.dumps(body).encode()
    sock.sendall(head(len(data)))
    sock.sendall(data)
    return sock


def connected(server: OwnServer) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").removesuffix("/score").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(size: int) -> bytes:
    """The head of a request with a body of so many bytes."""
    return b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size


def test_the_downloads_of_a_client_that_has_left_end(server: OwnServer, images: Server) -> None:
    with sent(server, of_urls(*[images.url("/drip-body")] * 5)):
        until(lambda: images.requests["/drip-body"] == 5)
    until(lambda: not images._open)
    assert server.post(json.dumps(TEXT).encode()).status_code == 200


def test_a_client_that_left_after_a_large_body_is_noticed(
    server: OwnServer, images: Server
) -> None:
    data = [[images.url("/drip-body"), "x" * 2_000_000]]
    with sent(server, {"input_data": {"columns": ["image", "ignored"], "data": data}}):
        until(lambda: images.requests["/drip-body"])
    until(lambda: not images._open)


def test_more_clients_that_left_than_threads_occupy_none(server: OwnServer, images: Server) -> None:
    """They hang at a host with few places, so most of their rows still wait."""
    sockets = [sent(server, of_urls(images.url("/drip-headers"))) for _ in range(300)]
    until(lambda: images.requests["/drip-headers"] >= 8)
    for sock in sockets:
        sock.close()
    assert server.post(json.dumps(TEXT).encode()).status_code == 200
    until(lambda: not images._open)


def test_a_client_may_say_how_long_it_waits(server: OwnServer, images: Server) -> None:
    response = requests.post(
        server.url,
        json=of_urls(images.url("/drip-body")),
        headers={"X-Request-Timeout": "0.5"},
        timeout=25,
    )
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "request_timeout"
    assert "within 0.5 s" in response.json()["error"]["message"]
    until(lambda: not images._open)


def test_a_client_cannot_wait_longer_than_the_server(images: Server) -> None:
    own = OwnServer(SCORE_REQUEST_TIMEOUT="1", SCORE_ROW_DEADLINE="60", SCORE_READ_TIMEOUT="60")
    try:
        own.wait()
        for headers in ({}, {"X-Request-Timeout": "50"}):
            body = of_urls(images.url("/drip-body"))
            response = requests.post(own.url, json=body, headers=headers, timeout=25)
            assert response.status_code == 504
            assert "within 1 s" in response.json()["error"]["message"]
    finally:
        own.stop()


def test_a_client_may_wait_longer_than_threads_can(server: OwnServer) -> None:
    headers = {"X-Request-Timeout": "1e300"}
    assert requests.post(server.url, json=TEXT, headers=headers, timeout=25).status_code == 200


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf", ""])
def test_an_unusable_timeout_is_a_bad_request(server: OwnServer, value: str) -> None:
    headers = {"X-Request-Timeout": value}
    response = requests.post(server.url, json=TEXT, headers=headers, timeout=25)
    assert response.status_code == 400
    assert "X-Request-Timeout must be a number of seconds" in response.json()["error"]["message"]


def test_a_patient_client_gets_its_answer(server: OwnServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        headers = {"X-Request-Timeout": "20"}
        answers = pool.map(
            lambda _: requests.post(server.url, json=TEXT, headers=headers, timeout=25), range(16)
        )
        assert {answer.status_code for answer in answers} == {200}
