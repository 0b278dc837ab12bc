"""The server's log: a line a request, ids, and nothing secret."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from score.core.embedder import Embedder, parts_of
from score.dialects import table
from score.serve import logs
from score.serve.request_log import Request, RequestLog
from score.settings import Settings
from tests.serve.test_connections import HEAD, TEXT, error
from tests.support.in_process import Running, rest, serving, until
from tests.support.surfaces import OwnServer

pytestmark = pytest.mark.process

ID = "X-Request-Id"
SECRETS = ("k3y-of-a-client", "hunter2", "sig%3DSaS", "c00kie", "confidential text")


@pytest.fixture(scope="module")
def server(embedder: Embedder) -> Iterator[Running]:
    with serving(embedder) as server:
        yield server


def post(server: Running, data: bytes = TEXT, **headers: str) -> requests.Response:
    return requests.post(f"{server.url}/score", data=data, headers=headers, timeout=60)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.name == "score.access"]


@contextmanager
def json_lines(name: str) -> Iterator[io.StringIO]:
    """What a logger writes as JSON within the block."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)


def test_a_line_a_request(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": "a"}, {"text": 5}, {"image": "%%%"}]
    body = json.dumps({"input_data": rows, "params": {"on_error": "report"}}).encode()
    with caplog.at_level(logging.INFO, "score"):
        answer = post(server, body, **{ID: "given-1"})
        until(lambda: lines(caplog))
    (line,) = lines(caplog)
    assert line.pop("milliseconds") > 0
    assert line == {
        "request_id": "given-1",
        "method": "POST",
        "path": "/score",
        "status": 200,
        "model": "clip-endpoints-emoji",
        "rows": 3,
        "errors": 2,
        "bytes_in": len(body),
        "bytes_out": len(answer.content),
    }


def test_a_client_that_leaves_while_it_sends_its_body_has_cancelled(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "score"):
        with server.connect() as sock:
            sock.sendall(HEAD + b"Content-Length: 50\r\n\r\n{")
        until(lambda: lines(caplog))
    (line,) = lines(caplog)
    assert (line["path"], line["status"]) == ("/score", 499)


def test_what_monitors_ask_is_quiet_and_nothing_else(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    monitored = {"/health/live", "/health/ready", "/metrics", *table.LIVE, *table.READY}
    others = {"/pingxyz", "/metricsfoo", "/health/none", "/version"}
    with caplog.at_level(logging.INFO, "score"):
        for path in monitored | others:
            requests.get(server.url + path, timeout=60)
        requests.put(f"{server.url}/ping", timeout=60)
        until(lambda: len(lines(caplog)) >= len(others) + 1)
    assert {line["path"] for line in lines(caplog)} == {*others, "/ping"}


def test_a_refused_monitor_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog()
    with caplog.at_level(logging.INFO, "score"):
        for path, status in (("/metrics", 401), ("/ping", 429), ("/ping", 503), ("/metrics", 200)):
            log._finish(Request("1", "GET", path, status=status))
    assert [line["status"] for line in lines(caplog)] == [401, 429]


def test_a_given_id_comes_back(server: Running) -> None:
    for fit in ("a", "4bf92f35-77b3.4da6_a3ce:x=1", "x" * 128):
        assert post(server, **{ID: fit}).headers[ID] == fit


@pytest.mark.parametrize("unfit", ["", "x" * 129, "a b", 'a"b', "a/b?c", "é"])
def test_an_unfit_id_is_replaced(server: Running, unfit: str) -> None:
    response = requests.post(
        f"{server.url}/score", data=TEXT, headers={ID: unfit.encode("latin-1")}, timeout=60
    )
    assert len(response.headers[ID]) == 32


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("GET", "/ping", b""),
        ("GET", "/metrics", b""),
        ("GET", "/nothing", b""),
        ("PUT", "/score", b""),
        ("POST", "/score", b"no json"),
        ("POST", "/score", TEXT),
    ],
)
def test_every_answer_has_an_id_and_safe_headers(
    server: Running, method: str, path: str, data: bytes
) -> None:
    first, second = (requests.request(method, server.url + path, data=data) for _ in range(2))
    assert first.headers[ID] != second.headers[ID]
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["Cache-Control"] == "no-store"
    assert "Server" not in first.headers


@pytest.mark.parametrize("host", [b"[", b"a]b:x", b""])
def test_a_malformed_host_does_not_make_a_wrong_path_a_failure(
    server: Running, host: bytes
) -> None:
    """Starlette's oldest versions that are allowed cannot parse it."""
    with server.connect() as sock:
        sock.sendall(b"GET /no HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n")
        assert error(rest(sock)) == (404, "not_found")


def test_what_is_no_http_is_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "score"), server.connect() as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        assert error(rest(sock)) == (400, "bad_request")
    assert [line["status"] for line in lines(caplog)] == [400]


def test_a_failure_carries_the_requests_id(
    server: Running, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(batch: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(parts_of(embedder).encoder.engine, "texts", fails)
    with json_lines("score.core.endpoint") as stream:
        answer = post(server, **{ID: "failing"})
    assert (answer.status_code, answer.headers[ID]) == (500, "failing")
    assert "a bug" not in answer.text
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert (line["level"], line["request_id"]) == ("error", "failing")
    assert "ValueError: a bug" in line["exception"]


def test_what_a_client_may_not_know_of_a_download_is_logged_with_its_id(server: Running) -> None:
    table = {"columns": ["image"], "data": [["http://10.1.2.3/a.png?sig=SECRET"]]}
    with json_lines("score.fetch.disclosure") as stream:
        answer = post(server, json.dumps({"input_data": table}).encode(), **{ID: "inside"})
    (row,) = answer.json()["error"]["rows"]
    assert (row["code"], "which is not public" in answer.text) == ("blocked_host", False)
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert (line["level"], line["request_id"]) == ("warning", "inside")
    assert line["message"].startswith("http://10.1.2.3/a.png: 10.1.2.3, which is not public")


def test_a_bug_of_the_server_is_a_500_in_json(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(server.server._metrics, "text", fails)
    answer = requests.get(f"{server.url}/metrics", timeout=60)
    assert (answer.status_code, len(answer.headers[ID])) == (500, 32)
    assert answer.json()["error"]["code"] == "internal_error"
    assert "a bug" not in answer.text
    until(lambda: any(record.exc_info for record in caplog.records))


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_is_logged(form: str, tmp_path: Path) -> None:
    key, password, signature, cookie, text = SECRETS
    log = tmp_path / "log"
    server = OwnServer(log=log, SCORE_LOG_FORMAT=form, SCORE_LOG_LEVEL="debug")
    try:
        server.wait()
        image = base64.b64encode(b"no image " + text.encode()).decode()
        cells = [
            f"http://user:{password}@127.0.0.1:1/a.png",
            f"http://127.0.0.1:1/a.png?sv=1&sig={signature}",
            image,
        ]
        rows = [*({"image": cell} for cell in cells), {"text": text}]
        body = json.dumps({"input_data": rows, "params": {"on_error": "report"}})
        headers = {"Authorization": f"Bearer {key}", "api-key": key, "Cookie": cookie}
        headers[ID] = f"{key} x"
        for data in (body, body[:-1], body.replace('"report"', f'"{text}"')):
            requests.post(
                f"{server.url}?code={key}&sig={signature}", data=data, headers=headers, timeout=60
            )
        requests.get(f"{server.url}/?{key}", headers=headers, timeout=60)
        with_password = server.url.replace("http://", f"http://user:{password}@")
        requests.get(with_password, timeout=60)
    finally:
        server.stop()
    logged = log.read_text()
    assert "/score" in logged
    assert logged.count("status=" if form == "text" else '"status": ') >= 6
    for secret in (*SECRETS, image, "127.0.0.1:1/a.png?"):
        assert secret not in logged


def test_the_formats() -> None:
    record = logging.LogRecord("score.x", logging.INFO, __file__, 1, "two\nlines", None, None)
    record.__dict__["fields"] = {"status": 200}
    line = json.loads(logs.JsonLines().format(record))
    assert "\n" not in logs.JsonLines().format(record)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "info", "logger": "score.x", "message": "two\nlines", "status": 200}
    assert logs.Text().format(record).endswith("INFO score.x: two\nlines status=200")
    assert Settings().log_format == "json"


def test_paths_cannot_forge_lines(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "score"), server.connect() as sock:
        sock.sendall(
            HEAD.replace(b"/score", b"/a%0Ab%22" + b"c" * 500) + b"Connection: close\r\n\r\n"
        )
        rest(sock)
        until(lambda: lines(caplog))
    (line,) = lines(caplog)
    assert line["path"].startswith("/a%0Ab%22ccc")
    assert len(line["path"]) == 200
