"""Invariant: a job that is killed again and again, by SIGKILL, at any moment, has each row once in
the end, as an uninterrupted one has them; a kill repeats at most a shard and what is under way.

    python -m fuzz.kills --kills 50 --rows 20000

Embeds texts, images behind URLs of this machine, and rows that fail.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from score.job_folder import manifest
from score.job_folder.ledger import read
from score.job_folder.status import Status
from tests.support.images import random_image
from tests.support.job_folders import assert_same, content

SHARD_ROWS = 200
_AHEAD = 4096  # rows that a stream may have embedded beyond those that are written
_IMAGES = 64
_LONGEST = 6.0  # seconds from the start of a process to its kill: starting takes two of them


class Server:
    """Images, each of which takes a few milliseconds. served: how often each path was."""

    def __init__(self) -> None:
        self.served = Counter[str]()
        ours, images = self, [random_image(seed, (32, 32)) for seed in range(_IMAGES)]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                ours.served[self.path] += 1
                time.sleep(0.005)
                number = int(self.path.strip("/").removesuffix(".png"))
                body = images[number % _IMAGES]
                self.send_response(404 if number % 97 == 0 else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        class Listening(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None: ...  # clients that were killed

        self.listening = Listening(("127.0.0.1", 0), Handler)

    def url(self, number: int) -> str:
        """Of an image."""
        return f"http://127.0.0.1:{self.listening.server_port}/{number}.png"


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is running."""
    server = Server()
    threading.Thread(target=server.listening.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.listening.shutdown()
        server.listening.server_close()


def write_table(file: Path, rows: int, server: Server) -> None:
    """A third texts, a third images, a third both; some are no image, no text or no row."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "image", "text"])
        for number in range(rows):
            image = server.url(number) if number % 3 else ""
            text = f"text\n{number % 1009}" if number % 3 != 1 else ""
            poison = {5: [str(number)], 6: [str(number), "no image", ""], 7: [str(number), "", ""]}
            table.writerow(poison.get(number % 211, [str(number), image, text]))


def killed(table: Path, output: Path, seconds: float | None) -> bool:
    """Embeds a table, for at most some seconds. Returns whether it had to be killed."""
    command = [sys.executable, "-m", "score", "embed", str(table), "--output", str(output)]
    command += ["--quiet", "--allow-hosts", "127.0.0.1", "--shard-rows", str(SHARD_ROWS)]
    with subprocess.Popen(command) as process:  # noqa: S603
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    assert code == 0, f"exit code {code}"
    return False


def run(kills: int, rows: int, seed: int, folder: Path) -> None:
    """Asserts the invariant. folder: an empty one to work in."""
    dice = random.Random(seed)
    table = folder / "in.csv"
    with serving() as server:
        write_table(table, rows, server)
        assert not killed(table, folder / "whole", None)
        once = server.served.total()
        happened, job = 0, folder / "job"
        while happened < kills and killed(table, job, dice.uniform(0, _LONGEST)):
            happened += 1
            if manifest.exists(job):
                print(f"kill {happened}: {Status.of(job).rows:,} rows", flush=True)
        assert not killed(table, job, None)
        again = server.served.total() - 2 * once
    assert_same(content(folder / "job"), content(folder / "whole"))
    written = sum(entry.rows for entry in read(folder / "job"))
    assert written == rows, f"{written:,} rows were written, of {rows:,}"
    most = happened * (SHARD_ROWS + _AHEAD)
    assert again <= most, f"{again:,} images were fetched again"
    print(f"{happened} kills: each of {rows:,} rows once, {again:,} images fetched again")


def main() -> None:
    """Runs with as many kills and rows as the command line says."""
    parser = argparse.ArgumentParser(description="a job that is killed again and again")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options.kills, options.rows, options.seed, Path(folder))


if __name__ == "__main__":
    main()
