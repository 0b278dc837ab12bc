"""Requests of one row each from many clients at a time, beside the rate of one long stream.

    python -m benchmarks.load                           a random ViT-B/32, as the settings choose
    python -m benchmarks.load --before CHECKOUT         beside the code of another checkout
    python -m benchmarks.load --precision bf16 --clients 1 64 --kinds texts

A closed loop: each client sends its next request when it has the answer to the last. Clients, the
server and the server of images are processes of their own on this machine, so what clients take
of its cores the server does not have. `offline` is one stream over all rows in one process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from benchmarks import fixtures
from score.console import commands

KINDS = ("texts", "base64", "urls")
LATENCY = 0.05  # seconds that the server of images takes
_OFFLINE = """
import json, sys, time
from pathlib import Path
from score.core.embedder import Embedder
from score.contract.rows import Row
from score.settings import Settings
settings = Settings.from_env(__import__("os").environ)
embedder = Embedder.load(sys.argv[1], settings)
rows = [Row(**row) for row in json.loads(Path(sys.argv[2]).read_text())]
list(embedder.embed(rows[:64]))
for turn in range(2):
    began = time.perf_counter()
    assert not any(record.error for record in embedder.embed(rows))
print(len(rows) / (time.perf_counter() - began))
"""


@dataclass(frozen=True)
class Result:
    """What clients met: rows a second, and seconds of each request."""

    rate: float
    seconds: list[float]

    def __str__(self) -> str:
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        p50, p95, p99 = (1000 * cuts[at] for at in (49, 94, 98))
        return f"{self.rate:7.1f} rows/s   p50 {p50:6.0f}   p95 {p95:6.0f}   p99 {p99:6.0f} ms"


def cells(kind: str, count: int, urls: Sequence[str]) -> list[dict[str, str]]:
    """Rows of one kind, as JSON has them."""
    if kind == "texts":
        return [{"text": text} for text in fixtures.texts(count)]
    if kind == "urls":
        turn = cycle(urls[: len(fixtures.SMALL)])
        return [{"image": next(turn)} for _ in range(count)]
    images = cycle(map(fixtures.in_base64, fixtures.images(fixtures.SMALL)))
    return [{"image": next(images)} for _ in range(count)]


@contextmanager
def server(model: Path, checkout: Path, environment: dict[str, str]) -> Iterator[int]:
    """`score serve` by the code in a checkout, on a free port."""
    with socket.create_server((fixtures.HERE, 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "score", "serve", str(model), "--port", str(port)]
    command += ["--allow-hosts", fixtures.HERE]
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        if not any("startup complete" in line for line in process.stderr):
            raise SystemExit("the server did not start")
        reader = threading.Thread(target=process.stderr.read)  # so that its log never fills up
        reader.start()
        try:
            yield port
        finally:
            process.terminate()
            reader.join()


def load(port: int, rows: Sequence[dict[str, str]], clients: int, seconds: float) -> Result:
    """Requests for some seconds, after some that are not counted."""
    turn, lock = cycle(rows), threading.Lock()
    took: list[float] = []
    began = time.perf_counter()
    counted, ends = began + seconds / 4, began + 1.25 * seconds

    def client() -> None:
        connection = http.client.HTTPConnection(fixtures.HERE, port)
        connection.connect()  # headers and body are sent apart: neither waits for the other
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (start := time.perf_counter()) < ends:
            with lock:
                row = next(turn)
            body = {"input_data": {"columns": list(row), "data": [list(row.values())]}}
            connection.request("POST", "/score", json.dumps(body))
            answer = connection.getresponse()
            if answer.status != 200:
                raise SystemExit(f"{answer.status}: {answer.read()[:200]!r}")
            answer.read()
            if (now := time.perf_counter()) >= counted and now < ends:
                took.append(now - start)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Result(len(took) / seconds, took)


def offline(
    model: Path, checkout: Path, environment: dict[str, str], rows: Sequence[dict[str, str]]
) -> float:
    """Rows a second of one stream."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.json"
        file.write_text(json.dumps(rows))
        command = [sys.executable, "-c", _OFFLINE, str(model), str(file)]
        done = subprocess.run(
            command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
    return float(done.stdout)


def main() -> None:
    parser = commands.Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="a package; default: a random ViT-B/32")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="code to compare with")
    parser.add_argument("--precision", default="auto", help="SCORE_PRECISION (auto)")
    parser.add_argument("--engine", default="auto", help="SCORE_ENGINE (auto)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (10)")
    parser.add_argument("--turns", type=int, default=1, help="measurements of each (1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, fixtures.image_server(LATENCY) as urls:
        _compare(options, fixtures.model(options.model, Path(scratch)), urls)


def _compare(options: argparse.Namespace, model: Path, urls: Sequence[str]) -> None:
    environment = os.environ | {
        "SCORE_PRECISION": options.precision,
        "SCORE_ENGINE": options.engine,
        "SCORE_ALLOW_HOSTS": fixtures.HERE,
    }
    here = Path(__file__).resolve().parent.parent
    checkouts = {"now": here} | ({"before": options.before.resolve()} if options.before else {})
    for kind in options.kinds:
        rows = cells(kind, 2000 if kind == "texts" else 200, urls)
        for _ in range(options.turns):
            for name, checkout in checkouts.items():
                rate = offline(model, checkout, environment, rows)
                print(f"{kind:7} {name:7} offline     {rate:7.1f} rows/s", flush=True)
                for clients in options.clients:
                    with server(model, checkout, environment) as port:
                        result = load(port, rows, clients, options.seconds)
                    print(f"{kind:7} {name:7} {clients:3} clients {result}", flush=True)


if __name__ == "__main__":
    commands.run(main)
