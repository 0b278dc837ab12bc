"""Peak memory of `score embed` over image CSVs of different lengths: it must not grow with them.

    python -m benchmarks.memory [--rows 500 10000] [--model DIR] [--precision bf16] [--engine …]

Rows alternate between base64, no two alike, and URLs of an image server on this machine, whose
images are of 640×480, 1920×1080 and 4000×3000.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from benchmarks import fixtures
from score.console import commands
from score.settings import MIB


def write_csv(file: Path, rows: int, urls: list[str]) -> None:
    inline = map(fixtures.in_base64, fixtures.distinct())
    cells = (cell for pair in zip(inline, cycle(urls), strict=False) for cell in pair)
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "image"])
        table.writerows(enumerate(islice(cells, rows)))


def measured(command: list[str]) -> tuple[int, float]:
    """Peak resident bytes and seconds of a command, which must succeed."""
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    return usage.ru_maxrss * 1024, time.perf_counter() - began


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 10_000])
    parser.add_argument("--model", type=Path, help="default: a random ViT-B/32")
    parser.add_argument("--precision", default="fp32", help="default: fp32")
    parser.add_argument("--engine", default="auto", help="default: auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, fixtures.image_server() as urls:
        folder = Path(scratch)
        model = fixtures.model(options.model, folder, int8=options.precision == "int8")
        command = [sys.executable, "-m", "score", "embed", str(folder / "rows.csv")]
        command += ["--output", str(folder / "out.parquet"), "--model", str(model)]
        command += ["--allow-hosts", fixtures.HERE, "--max-errors", "0", "--quiet", "--overwrite"]
        command += ["--device", "cpu", "--precision", options.precision, "--engine", options.engine]
        peaks = []
        write_csv(folder / "rows.csv", 2, urls)
        measured(command)  # OpenVINO compiles once
        for rows in options.rows:
            write_csv(folder / "rows.csv", rows, urls)
            size = (folder / "rows.csv").stat().st_size
            peak, seconds = measured(command)
            peaks.append(peak)
            print(
                f"{rows:7,} rows, CSV {size / MIB:6.0f} MiB: {peak / MIB:6.0f} MiB, {seconds:.0f} s"
            )
        print(f"largest over smallest: {max(peaks) / min(peaks):.3f}")


if __name__ == "__main__":
    commands.run(main)
