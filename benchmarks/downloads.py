"""Downloads by `score embed` from hosts of different kinds, the old fixed limits beside the new.

    python -m benchmarks.downloads                      three turns of 3,000 and 600 URLs
    python -m benchmarks.downloads --before CHECKOUT    beside the code of another checkout

Servers on this machine, each in a process of its own: one that answers in 50 ms however many ask;
one that answers more than 16 requests at a time with 429 and `Retry-After: 1`, as hosts do that
shed load; and both in one table. The embedded model, so that downloads are what takes time.
`adaptive` is the default; `at most 8` is 8 downloads a host and 16 in all, as was the default once.
Contenders take turns, so that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from pyarrow.parquet import read_table

from benchmarks import fixtures
from score.console import commands

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


def write_csv(file: Path, urls: list[str]) -> None:
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image"])
        table.writerows([url] for url in urls)


@dataclass(frozen=True)
class Contender:
    """A way to run `score embed`: the code in `checkout`, with these flags."""

    name: str
    flags: list[str]
    checkout: Path | None = None


def embed(file: Path, output: Path, contender: Contender) -> tuple[float, int]:
    """Rows a second, as the command itself counts them after loading, and how many failed."""
    command = [sys.executable, "-m", "score", "embed", str(file), "--output", str(output)]
    command += ["--allow-hosts", fixtures.HERE, "--quiet", "--max-errors", "1000000"]
    command += contender.flags
    done = subprocess.run(
        command, check=True, cwd=contender.checkout, capture_output=True, text=True
    )
    speed = re.search(r"([0-9][0-9.,]*) rows/s", done.stdout + done.stderr)
    assert speed, done.stderr
    codes = read_table(output).column("error_code")
    return float(speed[1].replace(",", "")), len(codes) - codes.null_count


def rates(
    urls: list[str], contenders: list[Contender], turns: int, folder: Path
) -> dict[str, list[tuple[float, int]]]:
    """Rows a second and failed rows, by contender, one a turn."""
    rows = folder / "rows.csv"
    write_csv(rows, urls)
    turns_of: dict[str, list[tuple[float, int]]] = {contender.name: [] for contender in contenders}
    for _ in range(turns):
        for contender in contenders:
            with tempfile.TemporaryDirectory(dir=folder) as output:
                turns_of[contender.name].append(
                    embed(rows, Path(output, "rows.parquet"), contender)
                )
    return turns_of


def tables(calm: list[str], busy: list[str], rows: int) -> dict[str, list[str]]:
    few = rows // 5
    pairs = zip(islice(cycle(calm), few), cycle(busy), strict=False)
    return {
        "calm host": list(islice(cycle(calm), rows)),
        "shedding host": list(islice(cycle(busy), few)),
        "both, in turns": [url for pair in pairs for url in pair],
    }


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000, help="URLs of the calm server")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout whose defaults take part, too")
    options = parser.parse_args()
    contenders = [Contender("at most 8", NARROW), Contender("adaptive", [])]
    if options.before:
        contenders.insert(0, Contender("before", [], options.before.resolve()))
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch, servers() as (calm, busy):
        for name, urls in tables(calm, busy, options.rows).items():
            turns_by_contender = rates(urls, contenders, options.turns, Path(scratch))
            for contender, turns in turns_by_contender.items():
                speeds = [speed for speed, _ in turns]
                print(
                    f"{name}, {contender}: {statistics.median(speeds):.0f} rows/s "
                    f"({min(speeds):.0f} to {max(speeds):.0f}); failed rows of "
                    f"{len(urls):,}: {', '.join(str(failed) for _, failed in turns)}",
                    flush=True,
                )


if __name__ == "__main__":
    commands.run(main)
