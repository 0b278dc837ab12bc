"""Several worker processes: they share the port, and are replaced when they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import requests

from score.core.embedder import Embedder
from score.deploy.simulate.ports import free_port
from tests.support.in_process import serving
from tests.support.surfaces import ROOT, OwnServer

pytestmark = pytest.mark.process

BODY = b'{"input_data": {"columns": ["text"], "data": [["a cat"]]}}'
GIVE_UP = 120.0


def until(happened: Callable[[], object]) -> None:
    """Returns once something has happened."""
    give_up = time.monotonic() + GIVE_UP
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


# -- the supervisor, with workers that load no model -------------------------------------------


class Supervised:
    """A supervisor of two workers in a process of its own."""

    def __init__(self, job: str, folder: Path) -> None:
        self.folder = folder
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.worker_jobs", job, str(folder)],
                cwd=ROOT,
                stderr=log,
                start_new_session=True,
            )

    @property
    def starts(self) -> list[int]:
        """The process ids of all workers so far."""
        with suppress(FileNotFoundError):
            return [*map(int, (self.folder / "starts").read_text().split())]
        return []

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def is_ready(self, count: int) -> bool:
        """Whether so many workers have become ready so far."""
        assert self.process.poll() is None, self.log
        return self.log.count("is ready") == count

    def ended(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(GIVE_UP)


@contextmanager
def supervised(job: str, folder: Path) -> Iterator[Supervised]:
    supervisor = Supervised(job, folder)
    try:
        yield supervisor
    finally:
        with suppress(ProcessLookupError):
            os.killpg(supervisor.process.pid, signal.SIGKILL)
        supervisor.process.wait(GIVE_UP)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_all_workers_finish(number: int, tmp_path: Path) -> None:
    with supervised("serve", tmp_path) as supervisor:
        until(lambda: supervisor.is_ready(2))
        supervisor.process.send_signal(number)
        assert supervisor.ended() == 0
        finished = {f"finished-{pid}" for pid in supervisor.starts}
        assert finished == {file.name for file in tmp_path.glob("finished-*")}
        assert (tmp_path / "stopped").exists()  # the listener was closed
        assert "Traceback" not in supervisor.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_all_workers_at_once(number: int, tmp_path: Path) -> None:
    with supervised("stubborn", tmp_path) as supervisor:
        until(lambda: supervisor.is_ready(2))
        supervisor.process.send_signal(number)
        until(lambda: (tmp_path / "stopped").exists())
        supervisor.process.send_signal(number)
        assert supervisor.ended() == 128 + number
        assert not any(map(is_running, supervisor.starts))


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with supervised("serve", tmp_path) as supervisor:
        until(lambda: supervisor.is_ready(2))
        first, second = supervisor.starts
        os.kill(first, signal.SIGKILL)
        until(lambda: supervisor.is_ready(3))
        assert is_running(second)
        assert len(supervisor.starts) == 3
        assert f"(process {first}) was ended by signal 9; another is started in 0 s" in (
            supervisor.log
        )
        supervisor.process.terminate()
        assert supervisor.ended() == 0


def test_a_model_that_is_unusable_ends_the_server_at_once(tmp_path: Path) -> None:
    with supervised("fail", tmp_path) as supervisor:
        assert supervisor.ended() == 2
        assert len(supervisor.starts) <= 2
        assert "the server stops: no worker can load the model" in supervisor.log


@pytest.mark.slow
def test_workers_that_end_while_they_load_are_not_started_for_ever(tmp_path: Path) -> None:
    with supervised("crash", tmp_path) as supervisor:
        assert supervisor.ended() == 2
        assert 10 <= len(supervisor.starts) <= 12  # five of each
        assert "the server stops: no worker can load the model" in supervisor.log
        assert "another is started in 0.1 s" in supervisor.log  # after a pause


@pytest.mark.slow
def test_a_server_goes_on_while_one_worker_can_load_the_model(tmp_path: Path) -> None:
    with supervised("one_serves", tmp_path) as supervisor:
        until(lambda: len(supervisor.starts) > 8)
        assert supervisor.is_ready(1)
        supervisor.process.terminate()
        assert supervisor.ended() == 0
        assert len(list(tmp_path.glob("finished-*"))) == 1


@pytest.mark.slow
def test_failures_of_different_workers_do_not_add_up(tmp_path: Path) -> None:
    with supervised("late", tmp_path) as supervisor:
        until(lambda: supervisor.is_ready(2))
        assert len(supervisor.starts) >= 7
        supervisor.process.terminate()
        assert supervisor.ended() == 0


@pytest.mark.slow
def test_a_process_that_does_not_start_is_tried_again(tmp_path: Path) -> None:
    with supervised("lacking", tmp_path) as supervisor:
        until(lambda: supervisor.is_ready(2))
        assert "worker 1 cannot be started: no memory; next try in 0.1 s" in supervisor.log
        assert len(supervisor.starts) == 2
        supervisor.process.terminate()
        assert supervisor.ended() == 0
        assert len(list(tmp_path.glob("finished-*"))) == 2


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with supervised("serve", tmp_path) as supervisor:
        until(lambda: supervisor.is_ready(2))
        workers = supervisor.starts
        supervisor.process.kill()
        supervisor.ended()
        until(lambda: not any(map(is_running, workers)))
        assert len(list(tmp_path.glob("finished-*"))) == 2


def test_each_worker_has_its_share_of_the_cores(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core cannot be shared out")
    with supervised("serve", tmp_path) as supervisor:
        until(lambda: supervisor.is_ready(2))
        shares = [os.sched_getaffinity(pid) for pid in supervisor.starts]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == cores


# -- the server --------------------------------------------------------------------------------


class Client(threading.Thread):
    """Sends requests over one connection, and counts answers and lost connections."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._session = url, requests.Session()
        self.answered, self.lost, self.others = 0, 0, 0
        self.until = threading.Event()
        self.ask()
        adapter = self._session.get_adapter(url)
        (pool,) = adapter.poolmanager.pools._container.values()  # type: ignore[attr-defined]
        connection = pool.pool.queue[-1]
        self.port: int = connection.sock.getsockname()[1]

    def ask(self) -> None:
        status = self._session.post(self._url, BODY, timeout=GIVE_UP).status_code
        self.answered += status == 200
        self.others += status != 200

    def run(self) -> None:
        while not self.until.is_set():
            try:
                self.ask()
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                self.lost += 1


def owner_of(port: int, workers: list[int]) -> int:
    """The worker that has accepted the connection of a client's port."""
    (inode,) = (
        words[9]
        for words in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if int(words[2].partition(":")[2], 16) == port and words[9] != "0"
    )
    for worker in workers:
        for file in Path(f"/proc/{worker}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(file) == f"socket:[{inode}]":
                    return worker
    raise AssertionError(f"no worker has the connection from port {port}")


def ready(log: Path) -> list[int]:
    """The process ids of the workers that have become ready so far."""
    lines = [line for line in log.read_text().splitlines() if line.endswith(") is ready")]
    return [int(line.rpartition("(process ")[2].partition(")")[0]) for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks Linux whose a socket is")
def test_a_crash_loses_the_requests_of_its_worker_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    own = OwnServer(arguments=["--workers", "2", "--log-format", "text"], log=log)
    clients: list[Client] = []
    try:
        own.wait()
        until(lambda: len(ready(log)) == 2)
        workers = ready(log)
        told = log.read_text()
        assert told.index("listening on") > told.index("is loaded"), "not before it does"
        owners: dict[int, list[Client]] = {worker: [] for worker in workers}
        give_up = time.monotonic() + GIVE_UP
        while not all(owners.values()) or len(clients) < 6:
            assert time.monotonic() < give_up
            client = Client(own.url)
            clients.append(client)
            owners[owner_of(client.port, workers)].append(client)
        killed, kept = workers
        for client in clients:
            client.start()
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(ready(log)) == 3)
        answered = [client.answered for client in clients]
        until(lambda: all(client.answered > n for client, n in zip(clients, answered, strict=True)))
        assert all(client.lost == 0 for client in owners[kept])
        assert all(client.lost <= 1 for client in owners[killed])
        assert not any(client.others for client in clients)
        new = ready(log)[2]

        def is_served_by_the_new_one() -> bool:
            client = Client(own.url)
            return owner_of(client.port, [kept, new]) == new

        until(is_served_by_the_new_one)
    finally:
        for client in clients:
            client.until.set()
        for client in clients:
            client.join(GIVE_UP) if client.is_alive() else None
        own.stop()


@pytest.mark.slow
def test_the_port_is_closed_while_workers_finish(tmp_path: Path) -> None:
    own = OwnServer(arguments=["--workers", "2", "--log-format", "text"], log=tmp_path / "log")
    address = ("127.0.0.1", int(own.url.rpartition(":")[2].partition("/")[0]))
    try:
        own.wait()
        with socket.create_server(("127.0.0.1", 0)) as slow, ThreadPoolExecutor(1) as pool:
            image = f"http://127.0.0.1:{slow.getsockname()[1]}/never.png"
            body = json.dumps({"input_data": {"columns": ["image"], "data": [[image]]}}).encode()
            waiting = pool.submit(own.post, body)
            downloading, _ = slow.accept()
            own._process.send_signal(signal.SIGTERM)
            until(lambda: is_refused(address))
            assert not waiting.done()
            slow.close()
            downloading.close()
            assert waiting.result(GIVE_UP).status_code == 422
        assert own._process.wait(GIVE_UP) == 0
    finally:
        if own._process.poll() is None:
            own.stop()


def is_refused(address: tuple[str, int]) -> bool:
    """Whether nothing listens there."""
    try:
        socket.create_connection(address, timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_worker_leaves_connections_to_the_others(embedder: Embedder) -> None:
    """It accepts one in each turn of its loop, however many wait."""
    held, release, counts = threading.Event(), threading.Event(), [0]
    with serving(embedder) as server, ExitStack() as opened:
        loop = server.server._tasks[0].get_loop()

        def count() -> None:
            counts.append(server.connections)
            if counts[-1] < 8:
                loop.call_soon(count)

        def hold() -> None:
            held.set()
            release.wait(GIVE_UP)
            count()

        loop.call_soon_threadsafe(hold)
        assert held.wait(GIVE_UP)
        for _ in range(8):
            opened.enter_context(server.connect())  # the kernel lets them wait
        release.set()
        until(lambda: counts[-1] == 8)
    assert max(later - earlier for earlier, later in pairwise(counts)) == 1


@pytest.mark.slow
def test_a_folder_that_is_no_model_ends_the_command(tmp_path: Path) -> None:
    port = ["--port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", "score", "serve", str(tmp_path), *port, "--workers", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GIVE_UP,
    )
    assert done.returncode == 2
    assert f"score: no config.json in {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr
