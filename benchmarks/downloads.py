"""Rows a second of `score embed`: URLs of hosts of different kinds, and texts.

    python -m benchmarks.downloads                      three turns of 3,000 and 600 URLs
    python -m benchmarks.downloads --before CHECKOUT    beside the code of another checkout
    python -m benchmarks.downloads --silent --rows 20000       one row in ten at a silent host
    python -m benchmarks.downloads --texts --rows 30000        captions instead of URLs

Servers on this machine, each in a process of its own: one that answers in 50 ms however many ask;
one that answers more than 16 requests at a time with 429 and `Retry-After: 1`, as hosts do that
shed load; and both in one table. With `--silent`, a server that accepts connections and never
answers has one row in ten beside the first; the same rows without it are the other table. The
embedded model, so that downloads are what takes time. `adaptive` is the default; `at most 8` is 8
downloads a host and 16 in all, as was the default once. Contenders, or tables of `--silent`, take
turns, so that other load on the machine affects both. The processor's time of a row depends little
on it; it is that of a process which does what the command does.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from pyarrow.parquet import read_table

from benchmarks import fixtures
from score.console import commands
from score.core.embedder import Embedder
from score.jobs.embed import embed_file
from score.settings import Settings

LATENCY = 0.05  # seconds that the servers take
CROWD = 16  # requests at a time that the shedding server takes
NARROW = ["--per-host", "8", "--fetch-workers", "16"]


@contextmanager
def servers() -> Iterator[tuple[list[str], list[str]]]:
    """URLs of a server that takes every request, and of one that sheds load."""
    with (
        fixtures.image_server(LATENCY, thumbnails=True) as calm,
        fixtures.image_server(LATENCY, thumbnails=True, crowd=CROWD) as busy,
    ):
        yield calm, busy


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server((fixtures.HERE, 0), backlog=1024) as listener:
        yield f"http://{fixtures.HERE}:{listener.getsockname()[1]}/silent.jpg"


def write_csv(file: Path, cells: list[str], column: str = "image") -> None:
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow([column])
        table.writerows([cell] for cell in cells)


@dataclass(frozen=True)
class Contender:
    """A way to run `score embed`: the code in `checkout`, with these flags."""

    name: str
    flags: list[str]
    checkout: Path | None = None


@dataclass(frozen=True)
class Run:
    """A table, and how it is embedded."""

    table: str
    cells: list[str]
    contender: Contender

    def embed(self, folder: Path) -> tuple[float, int]:
        """Rows a second, as the command itself counts them after loading, and how many failed."""
        table, output = self._written(folder)
        command = [sys.executable, "-m", "score", "embed", str(table), "--output", str(output)]
        command += ["--allow-hosts", fixtures.HERE, "--quiet", "--max-errors", "1000000"]
        command += ["--overwrite", *self.contender.flags]
        done = subprocess.run(
            command, check=True, cwd=self.contender.checkout, capture_output=True, text=True
        )
        speed = re.search(r"([0-9][0-9.,]*) rows/s", done.stdout + done.stderr)
        assert speed, done.stderr
        codes = read_table(output).column("error_code")
        return float(speed[1].replace(",", "")), len(codes) - codes.null_count

    def processor_time(self, folder: Path) -> float:
        """Seconds of the processor that a row takes, whatever else runs on it. Of our own code."""
        table, output = self._written(folder)
        embedder = Embedder.load(settings=Settings(allow_hosts=(fixtures.HERE,)))
        began = time.process_time()
        embed_file(embedder, table, output)
        return (time.process_time() - began) / len(self.cells)

    def _written(self, folder: Path) -> tuple[Path, Path]:
        table = folder / "rows.csv"
        column = "image" if self.cells[0].startswith("http") else "text"
        write_csv(table, self.cells, column)
        return table, folder / "rows.parquet"


def report(runs: list[Run], turns: int, folder: Path) -> None:
    """Medians of so many turns, in each of which every run has one."""
    results: list[list[tuple[float, int]]] = [[] for _ in runs]
    for _ in range(turns):
        for run, result in zip(runs, results, strict=True):
            result.append(run.embed(folder))
    for run, result in zip(runs, results, strict=True):
        speeds = [speed for speed, _ in result]
        print(
            f"{run.table}, {run.contender.name}: {statistics.median(speeds):.0f} rows/s "
            f"({min(speeds):.0f} to {max(speeds):.0f}); failed rows of "
            f"{len(run.cells):,}: {', '.join(str(failed) for _, failed in result)}",
            flush=True,
        )


def tables(calm: list[str], busy: list[str], rows: int) -> dict[str, list[str]]:
    few = rows // 5
    pairs = zip(islice(cycle(calm), few), cycle(busy), strict=False)
    return {
        "calm host": list(islice(cycle(calm), rows)),
        "shedding host": list(islice(cycle(busy), few)),
        "both, in turns": [url for pair in pairs for url in pair],
    }


def with_silent(urls: list[str], silent: str) -> list[str]:
    """The URLs, of every ten of which one is at a silent host."""
    return [silent if number % 10 == 5 else url for number, url in enumerate(urls)]


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000, help="URLs of the calm server, or texts")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout whose defaults take part, too")
    parser.add_argument("--silent", action="store_true", help="with and without a silent host")
    parser.add_argument("--texts", action="store_true", help="captions instead of URLs")
    options = parser.parse_args()
    contenders = [Contender("adaptive", [])]
    if options.before:
        contenders.insert(0, Contender("before", [], options.before.resolve()))
    print(f"load {os.getloadavg()[0]:.1f}")
    with (
        tempfile.TemporaryDirectory() as scratch,
        servers() as (calm, busy),
        silent_server() as silent,
    ):
        folder = Path(scratch)
        everything = tables(calm, busy, options.rows)
        plain = everything["calm host"]
        if options.texts:
            captions = fixtures.texts(options.rows)
            groups = [[Run("texts", captions, contender) for contender in contenders]]
        elif options.silent:
            both = {"calm host": plain, "one in ten silent": with_silent(plain, silent)}
            groups = [[Run(name, urls, contenders[-1]) for name, urls in both.items()]]
        else:
            contenders.insert(-1, Contender("at most 8", NARROW))
            groups = [
                [Run(name, urls, contender) for contender in contenders]
                for name, urls in everything.items()
            ]
        for runs in groups:
            report(runs, options.turns, folder)
        seconds = groups[0][-1].processor_time(folder)
        print(f"{groups[0][-1].table}: {1000 * seconds:.2f} ms of the processor a row")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    commands.run(main)
