"""Jobs whose output is a folder: their rate and memory, and how soon one goes on.

    python -m benchmarks.jobs rates [--texts 100000] [--urls 5000] [--turns 3]
    python -m benchmarks.jobs memory [--texts 1000000] [--urls 100000]
    python -m benchmarks.jobs resume [--shards 10000]

`rates`: the same rows into a file and into a folder, in turns, so that other load on the machine
affects both; loading counts in no rate, and in no difference of processor times. `memory`: the
resident memory of one job after its first shard and later. `resume`: from the start of the command
to the first new row of a job with many finished shards. The embedded model, so that what is
measured is the job; images come from a server of this machine that answers after 50 ms.
"""

from __future__ import annotations

import argparse
import csv
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

from benchmarks import fixtures
from score.console import commands
from score.contract.params import Params
from score.core.embedder import Embedder
from score.job_folder.embed import JobOptions, embed_into
from score.job_folder.status import Status
from score.jobs.line_source import open_lines
from score.jobs.summary import Summary
from score.settings import MIB

LATENCY = 0.05  # seconds that the server takes
_PAUSE = 0.25  # seconds between looks at a process


def write_texts(file: Path, rows: int) -> Path:
    """Texts, no two alike."""
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "text"])
        table.writerows((number, f"a photo of {number} cats") for number in range(rows))
    return file


def write_urls(file: Path, rows: int, urls: list[str]) -> Path:
    """URLs, no two alike."""
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "image"])
        named = (f"{url}?n={number}" for number, url in enumerate(cycle(urls)))
        table.writerows(enumerate(islice(named, rows)))
    return file


def command(table: Path, output: Path) -> list[str]:
    """`score embed` with its defaults."""
    words = [sys.executable, "-m", "score", "embed", str(table), "--output", str(output)]
    return [*words, "--allow-hosts", fixtures.HERE, "--quiet", "--max-errors", "0"]


def rate(table: Path, output: Path) -> tuple[float, float]:
    """Rows a second, as the command itself counts them after loading; and the processor time of
    the whole command, in seconds."""
    before = _processor_time()
    done = subprocess.run(command(table, output), check=True, capture_output=True, text=True)
    speed = re.search(r"([0-9][0-9.,]*) rows/s", done.stderr)
    assert speed, done.stderr
    return float(speed[1].replace(",", "")), _processor_time() - before


def _processor_time() -> float:
    """Of all commands that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rates(options: argparse.Namespace, folder: Path, urls: list[str]) -> None:
    """Prints the medians of both outputs, their ratio, and what a row costs more in a folder."""
    texts, images = options.texts or 100_000, options.urls or 5_000
    tables = {
        "texts": (texts, write_texts(folder / "texts.csv", texts)),
        "URLs": (images, write_urls(folder / "urls.csv", images, urls)),
    }
    for name, (rows, table) in tables.items():
        pairs = []
        for turn in range(options.turns):
            file = rate(table, folder / f"{name}-{turn}.parquet")
            pairs.append((file, rate(table, folder / f"{name}-{turn}")))
        file, job = (
            statistics.median(run[0] for run in column) for column in zip(*pairs, strict=True)
        )
        share = statistics.median(job[0] / file[0] for file, job in pairs)
        more = statistics.median(job[1] - file[1] for file, job in pairs) / rows
        print(
            f"{name}: {file:,.0f} rows/s into a file, {job:,.0f} into a folder ({share:.1%}), "
            f"where a row takes {1e6 * more:.0f} µs more of processor time"
        )


def resident(process: int) -> float:
    """MiB of a process; 0 after its end."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s*(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def memory(options: argparse.Namespace, folder: Path, urls: list[str]) -> None:
    """Prints the resident memory of jobs while they run."""
    tables = {
        "texts": write_texts(folder / "texts.csv", options.texts or 1_000_000),
        "URLs": write_urls(folder / "urls.csv", options.urls or 100_000, urls),
    }
    for name, table in tables.items():
        output = folder / name
        seen: list[float] = []
        began = time.monotonic()
        with subprocess.Popen(command(table, output)) as process:
            while process.poll() is None:
                if (output / "ledger.jsonl").is_file() and (output / "ledger.jsonl").stat().st_size:
                    seen.append(resident(process.pid))
                time.sleep(_PAUSE)
        if process.returncode:
            raise SystemExit(f"exit code {process.returncode}")
        seconds = time.monotonic() - began
        status = Status.of(output)
        used = sorted(filter(None, seen))
        tenth = max(1, len(seen) // 10)
        first, last = (statistics.median(part) for part in (seen[:tenth], seen[-tenth - 1 : -1]))
        print(
            f"{name}: {status.rows:,} rows, {status.failed.total():,} failed, {seconds:.0f} s; "
            f"{used[0]:.0f} to {used[-1]:.0f} MiB after the first shard, median of the first tenth "
            f"{first:.0f}, of the last {last:.0f} ({last / first - 1:+.1%}); table "
            f"{table.stat().st_size / MIB:.0f} MiB"
        )


class _Enough(Exception):
    """The job has its shards."""


def resume(options: argparse.Namespace, folder: Path, urls: list[str]) -> None:
    """Prints how long it takes a job with many shards to go on, and one without any."""
    table = write_texts(folder / "texts.csv", options.shards + 5_000)
    job = folder / "job"

    def progress(summary: Summary) -> None:
        if summary.rows == options.shards:
            raise _Enough

    with open_lines(table) as lines:
        chosen, params = JobOptions(shard_rows=1), Params(on_error="report")
        with suppress(_Enough):
            embed_into(Embedder.load(), lines, job, params, chosen, progress)
    for name, output in (("of many shards", job), ("without any", folder / "new")):
        before = Status.of(output).rows if output.exists() else 0
        began = time.monotonic()
        with subprocess.Popen([*command(table, output), "--shard-rows", "1"]) as process:
            ledger = output / "ledger.jsonl"
            size = ledger.stat().st_size if before else 0
            while not ledger.is_file() or ledger.stat().st_size <= size:
                time.sleep(0.01)
            print(f"a job {name} ({before:,}) has a new one after {time.monotonic() - began:.2f} s")
            process.terminate()


_WHAT = {"rates": rates, "memory": memory, "resume": resume}


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=_WHAT)
    parser.add_argument("--texts", type=int)
    parser.add_argument("--urls", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--shards", type=int, default=10_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        fixtures.image_server(LATENCY, thumbnails=True) as urls,
    ):
        _WHAT[options.what](options, Path(scratch), urls)


if __name__ == "__main__":
    commands.run(main)
