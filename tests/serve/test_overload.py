"""More requests than the server takes on: refused at once, and told when to come again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serve.test_disconnects import TEXT, connected, head, of_urls, sent, until
from tests.support.hostile import Server
from tests.support.surfaces import OwnServer

pytestmark = pytest.mark.process

ONE_TEXT = json.dumps(TEXT).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    own = OwnServer(
        SCORE_MAX_PENDING_REQUESTS="8",
        SCORE_MAX_PENDING_ROWS="40",
        SCORE_MAX_PENDING_BYTES="20000",
        SCORE_ROW_DEADLINE="60",
        SCORE_READ_TIMEOUT="60",
    )
    try:
        own.wait()
        yield own
    finally:
        own.stop()


def refused(answer: Any, says: str) -> None:
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"]["code"] == "overloaded"
    assert says in answer.json()["error"]["message"]


def test_slow_downloads_leave_places_for_texts(server: OwnServer, images: Server) -> None:
    """Six of the eight places may have images: those beyond are refused, and texts answered."""
    sockets = [sent(server, of_urls(images.url("/drip-body"))) for _ in range(6)]
    until(lambda: images.requests["/drip-body"] == 6)
    refused(server.post(json.dumps(of_urls(images.url("/good.png"))).encode()), "three quarters")
    for _ in range(20):
        assert server.post(ONE_TEXT).status_code == 200
    for sock in sockets:
        sock.close()
    until(lambda: not images._open)
    until(lambda: server.post(json.dumps(of_urls("%")).encode()).status_code == 422)


def test_rows_of_all_requests_are_bounded(server: OwnServer, images: Server) -> None:
    with sent(server, of_urls(*[images.url("/drip-body")] * 30)):
        until(lambda: images.requests["/drip-body"])
        data = [["a"]] * 11
        body = json.dumps({"input_data": {"columns": ["text"], "data": data}}).encode()
        refused(server.post(body), "max_pending_rows (40)")
        assert server.post(ONE_TEXT).status_code == 200
    until(lambda: server.post(body).status_code == 200)


def test_bodies_of_all_requests_are_bounded(server: OwnServer, images: Server) -> None:
    rows = [{"image": images.url("/drip-body")}, {"text": "x" * 15_000}]
    with sent(server, {"input_data": rows}):
        until(lambda: images.requests["/drip-body"])
        body = json.dumps({"input_data": [{"text": "x" * 8_000}]}).encode()
        refused(server.post(body), "max_pending_bytes")
    until(lambda: server.post(body).status_code == 200)


def test_bodies_that_are_still_arriving_count(server: OwnServer) -> None:
    body = json.dumps({"input_data": [{"text": "x" * 8_000}]}).encode()
    with connected(server) as sock, connected(server) as other:
        sock.sendall(head(18_000) + b" " * 15_000)
        until(lambda: server.post(body).status_code == 429)
        refused(server.post(body), "max_pending_bytes")
        other.sendall(head(len(body)))  # refused before its body is sent
        assert b" 429 " in other.recv(4096)
        assert server.post(ONE_TEXT).status_code == 200
    until(lambda: server.post(body).status_code == 200)


def test_a_request_larger_than_all_together_is_too_large(server: OwnServer) -> None:
    body = {"input_data": {"columns": ["text"], "data": [["a"]] * 41}}
    answer = server.post(json.dumps(body).encode())
    assert answer.status_code == 413
    assert "Retry-After" not in answer.headers
    assert "max_pending_rows" in answer.json()["error"]["message"]


def test_a_crowd_is_answered_or_refused_and_nothing_else(server: OwnServer) -> None:
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: server.post(ONE_TEXT), range(200)))
    assert {answer.status_code for answer in answers} <= {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            refused(answer, "max_pending_requests")
    until(lambda: server.post(ONE_TEXT).status_code == 200)
