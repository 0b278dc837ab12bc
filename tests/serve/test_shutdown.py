"""How the server stops: what is under way is answered, and nothing keeps it from ending."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from score.core.embedder import Embedder, parts_of
from score.settings import Settings
from tests.serve.test_connections import HEAD, TEXT, error
from tests.support.in_process import rest, serving
from tests.support.surfaces import ROOT, OwnServer

pytestmark = pytest.mark.process


@contextmanager
def started(log: Path | None = None, **environ: str) -> Iterator[OwnServer]:
    server = OwnServer(log=log, **environ)
    try:
        server.wait()
        yield server
    finally:
        if server._process.poll() is None:
            server.stop()


def connect(server: OwnServer) -> socket.socket:
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def test_half_sent_requests_do_not_keep_the_server() -> None:
    with (
        started(SCORE_SHUTDOWN_TIMEOUT="3") as server,
        connect(server) as silent,
        connect(server) as half_headers,
        connect(server) as half_body,
    ):
        half_headers.sendall(HEAD)
        half_body.sendall(HEAD + b"Content-Length: 50\r\n\r\n{")
        time.sleep(0.5)
        server.terminate()
        assert error(rest(half_body)) == (503, "shutting_down")
        assert rest(half_headers) == rest(silent) == b""
        assert server.ended(60) == 0


@contextmanager
def download_that_hangs(sock: socket.socket) -> Iterator[socket.socket]:
    """A request over `sock` whose image never comes: the connection of its download."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/never.png"
        body = json.dumps({"input_data": [{"image": url}]}).encode()
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        with hanging.accept()[0] as download:
            yield download


def test_a_request_longer_than_the_bound_gets_a_503() -> None:
    with (
        started(SCORE_SHUTDOWN_TIMEOUT="1") as server,
        connect(server) as sock,
        download_that_hangs(sock),
    ):
        server.terminate()
        assert error(rest(sock)) == (503, "shutting_down")
        assert server.ended(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number: int) -> None:
    with (
        started(SCORE_SHUTDOWN_TIMEOUT="300") as server,
        connect(server) as sock,
        download_that_hangs(sock),
    ):
        server._process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            server.ended(1)
        server._process.send_signal(number)
        assert server.ended(30) == 128 + number


def test_all_of_stopping_is_within_the_bound() -> None:
    """Connections that are idle and requests that hang: 4 s in all, not one after the other."""
    with (
        started(SCORE_SHUTDOWN_TIMEOUT="4") as server,
        connect(server) as sock,
        download_that_hangs(sock),
    ):
        server.terminate()
        begun = time.monotonic()
        assert error(rest(sock)) == (503, "shutting_down")
        assert 3 < time.monotonic() - begun < 7


def test_what_such_a_request_began_is_given_up(embedder: Embedder) -> None:
    patient = Settings(device="cpu", allow_hosts=("127.0.0.1",), row_deadline=600, read_timeout=600)
    with (
        serving(Embedder(*parts_of(embedder), patient), shutdown_timeout=1) as server,
        server.connect() as sock,
        download_that_hangs(sock) as download,
    ):
        server.server.should_exit = True
        assert error(rest(sock)) == (503, "shutting_down")
        download.settimeout(60)
        assert rest(download).startswith(b"GET /never.png")  # and then it is closed


_SIGNALLED_EARLY = """
import os, signal, sys
from score.serve import listener
from score.serve.access import Access
from score.serve.running import Server, serve
from score.settings import Settings
from score.core.embedder import Embedder
from score.core.model_source import Loaded, Source
from score.dialects.base import ModelFacts

begin = Server.run

def run(self, sockets):
    os.kill(os.getpid(), signal.SIGTERM)
    begin(self, sockets)

Server.run = run
embedder = Embedder.load()
source = Source(ModelFacts("tested", 512, 77), lambda: Loaded(embedder))
serve([source], Settings(), listener.bound("127.0.0.1", 0), Access())
os._exit(7)
"""


def test_a_signal_that_comes_while_uvicorn_starts_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", _SIGNALLED_EARLY], cwd=ROOT, timeout=60)
    assert done.returncode == 7


def test_it_is_not_ready_at_once_and_still_answers_for_a_while() -> None:
    with started(SCORE_SHUTDOWN_DELAY="3") as server:
        base = server.url.removesuffix("/score")
        server.terminate()
        time.sleep(0.3)
        for path in ("/health/ready", "/ping"):
            answer = requests.get(base + path, timeout=10)
            assert (answer.status_code, answer.json()["reason"]) == (503, "the server is stopping")
        assert requests.get(f"{base}/health/live", timeout=10).status_code == 200
        answer = requests.post(server.url, data=TEXT, timeout=10)
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        assert server.ended(60) == 0


def test_it_stops_while_the_model_is_loaded() -> None:
    server = OwnServer()
    try:
        while True:
            try:
                connect(server).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        server.terminate()
        assert server.ended(60) == 0
    finally:
        if server._process.poll() is None:
            server.stop()


class Client(threading.Thread):
    """Sends requests one after another, on one connection or a new one each, until refused."""

    def __init__(self, server: OwnServer, *, reuse: bool) -> None:
        super().__init__()
        self._port = int(server.url.rpartition(":")[2].partition("/")[0])
        self._reuse = reuse
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while True:
            try:
                connection.connect() if connection.sock is None else None
            except ConnectionRefusedError:
                return
            try:
                connection.request("POST", "/score", TEXT)
                answer = connection.getresponse()
                answer.read()
                self.outcomes[str(answer.status)] += 1
            except ConnectionError:
                self.outcomes["reset"] += 1
                return
            if not self._reuse:
                connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("reuse", [True, False])
def test_under_load_every_request_is_answered(reuse: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started(log) as server:
        clients = [Client(server, reuse=reuse) for _ in range(12)]
        for client in clients:
            client.start()
        while not all(client.outcomes for client in clients):
            time.sleep(0.02)
        server.terminate()
        for client in clients:
            client.join(60)
        assert server.ended(60) == 0
    outcomes = sum((client.outcomes for client in clients), Counter())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    answered = [line for line in lines if line.get("path") == "/score"]
    assert outcomes.pop("200") == len(answered)
    # The kernel resets new connections that the listener has not accepted when it is closed.
    assert set(outcomes) <= (set() if reuse else {"reset"})
