"""The servers that are measured, each in a process of its own."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import fixtures
from score.deploy.simulate.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START = 300.0  # seconds for the first answer


class Server:
    """A process that listens on a port of this machine.

    log: its lines with the time at which each was read, those about single requests left out.
    """

    def __init__(self, process: subprocess.Popen[str], port: int, ready: str) -> None:
        self.process, self.port, self._ready = process, port, ready
        self.log: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            if '"score.access"' not in line:
                self.log.append((time.monotonic(), line))

    def status(self, path: str) -> int:
        """Of a GET; 0 where there is no answer."""
        connection = http.client.HTTPConnection(fixtures.HERE, self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    @property
    def is_ready(self) -> bool:
        return self.status(self._ready) == 200

    def wait(self) -> None:
        """Until it answers."""
        give_up = time.monotonic() + START
        while not self.is_ready:
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"{self.process.args!r} did not start:\n{self.tail()}")
            time.sleep(0.05)

    def wait_for(self, words: str, times: int, seconds: float = START) -> float:
        """The time of the line of its log that has these words, that many times so far."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            found = [at for at, line in self.log if words in line]
            if len(found) >= times:
                return found[times - 1]
            time.sleep(0.01)
        raise SystemExit(f"{words!r} not in the log of {self.process.args!r}:\n{self.tail()}")

    def tail(self) -> str:
        return "".join(line for _, line in self.log[-20:])

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Ends it, with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(10)
        if self.process.stderr and not self._reader.is_alive():
            self.process.stderr.close()


@contextmanager
def _started(
    command: Sequence[str], port: int, ready: str, environment: Mapping[str, str], folder: Path
) -> Iterator[Server]:
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    server = Server(process, port, ready)
    try:
        server.wait()
        yield server
    finally:
        server.end()


@contextmanager
def own(
    model: Path,
    environment: Mapping[str, str],
    flags: Sequence[str] = (),
    checkout: Path = ROOT,
) -> Iterator[Server]:
    """`score serve`, by the code in a checkout; entered once its model is loaded."""
    port = free_port()
    command = [sys.executable, "-m", "score", "serve", str(model.resolve()), "--port", str(port)]
    with _started([*command, *flags], port, "/health/ready", environment, checkout) as server:
        yield server


@contextmanager
def azure(script: Path, model: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """An entry script under Azure's inference server, with one worker, as Azure starts it."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "azmlinfsrv"), "--port", str(port)]
    command += ["--entry_script", str(script)]
    own = {
        "AZUREML_MODEL_DIR": str(model.resolve()),
        "AML_APP_ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "WORKER_COUNT": "1",
        "WORKER_TIMEOUT": "300",
    }
    with _started(command, port, "/", {**environment, **own}, ROOT) as server:
        yield server
