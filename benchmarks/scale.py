"""What a job of many URLs takes, from measured rates: machines, hours, bytes, look-ups, failures.

    python -m benchmarks.scale                    # the tables of docs/scale.md
    python -m benchmarks.scale measure            # bytes of a row, with the embedded model
    python -m benchmarks.scale --rows 3e8 --rate 60 --image-bytes 90e3 --failing 0.2 --price 0.1

Rates are those that docs/performance.md measures. Image sizes, failures and prices are yours.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import fixtures
from benchmarks.jobs import LATENCY, command, write_urls
from score.__main__ import main as score
from score.console import commands
from score.settings import Settings

HOUR, DAY = 3600.0, 24.0
TB = 1e12

RATES = {
    "fp32, PyTorch": 21.8,
    "bf16, PyTorch": 34.1,
    "bf16, OpenVINO": 37.8,
    "int8, OpenVINO": 59.7,
}
"""URL rows a second of ViT-B/32, two cores of an AMD EPYC: docs/performance.md, `URL, 640×480`."""

SIZES = {"10⁸": 1e8, "5.8·10⁹": 5.8e9}
SHARD_ROWS = 10_000

ROW_BYTES = 2_139
"""Of a row in the shards, with a URL of 34 characters and a vector of 512 numbers in float32:
`measure`."""


@dataclass(frozen=True)
class Plan:
    """A job. rows: its URLs. rate: rows a second of a machine. image_bytes: of an image. row_bytes:
    of a row in the shards. failing: the share of rows that fails. price: of a machine's hour."""

    rows: float
    rate: float
    image_bytes: float = 60e3
    row_bytes: float = ROW_BYTES
    failing: float = 0.1
    price: float = 0.0

    @property
    def hours(self) -> float:
        """Hours of machines."""
        return self.rows / self.rate / HOUR

    def machines(self, days: float) -> int:
        """Machines that are done after some days."""
        return math.ceil(self.hours / (days * DAY))

    @property
    def received(self) -> float:
        """Bytes of images."""
        return self.rows * (1 - self.failing) * self.image_bytes

    @property
    def written(self) -> float:
        """Bytes of shards."""
        return self.rows * self.row_bytes

    @property
    def shards(self) -> float:
        """Files, and lines of ledgers."""
        return self.rows / SHARD_ROWS


def slots(settings: Settings, failing: float) -> float:
    """Rows a second that the downloads of a process allow, if all that fail time out.

    A row that fails so holds one of `fetch_workers` for every try, and for the waits between them.
    """
    tries = settings.max_retries + 1
    seconds = tries * settings.connect_timeout
    seconds += sum(settings.retry_wait * 2**number for number in range(settings.max_retries))
    return settings.fetch_workers / (failing * seconds) if failing else float("inf")


def machines_table() -> Iterator[str]:
    """Hours and machines for each rate, as lines of Markdown."""
    heads = ("ViT-B/32, two cores", "rows/s", "URLs", "hours of a machine", "machines for a day")
    yield f"| {' | '.join((*heads, 'for a week'))} |"
    yield "|---" * 6 + "|"
    for size, rows in SIZES.items():
        for name, rate in RATES.items():
            plan = Plan(rows, rate)
            yield (
                f"| {name} | {rate} | {size} | {plan.hours:,.0f} | {plan.machines(1):,.0f} | "
                f"{plan.machines(7):,.0f} |"
            )


def amounts(plan: Plan) -> list[tuple[str, str, str]]:
    """What else a job takes: what, formula, amount."""
    return [
        ("received", "rows × (1 − failing) × bytes of an image", f"{plan.received / TB:,.1f} TB"),
        (
            "received by one machine",
            "rate × bytes of an image",
            f"{plan.rate * plan.image_bytes * 8 / 1e6:,.0f} Mbit/s",
        ),
        ("written", "rows × bytes of a row in the shards", f"{plan.written / TB:,.2f} TB"),
        ("files, lines of ledgers", "rows / 10,000", f"{plan.shards:,.0f}"),
        ("look-ups of names, at most", "rows", f"{plan.rows:,.0f}"),
        ("failed rows", "rows × failing", f"{plan.rows * plan.failing:,.0f}"),
    ]


def amounts_table() -> Iterator[str]:
    """`amounts` of both sizes, as lines of Markdown."""
    plans = [Plan(rows, RATES["bf16, PyTorch"]) for rows in SIZES.values()]
    yield f"| | formula | {' | '.join(SIZES)} |"
    yield "|---" * 4 + "|"
    for (what, formula, one), (*_, other) in zip(*map(amounts, plans), strict=True):
        yield f"| {what} | {formula} | {one} | {other} |"


def slots_table() -> Iterator[str]:
    """`slots` for some shares of failures, as lines of Markdown."""
    yield "| rows that time out | rows/s with the defaults | with `--fetch-workers 512` |"
    yield "|---" * 3 + "|"
    usual = Settings()
    more = replace(usual, fetch_workers=512)
    for failing in (0.05, 0.1, 0.3, 0.5):
        yield f"| {failing:.0%} | {slots(usual, failing):,.0f} | {slots(more, failing):,.0f} |"


def measure(rows: int) -> None:
    """Prints the bytes of a row in the shards of a job with the embedded model."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        fixtures.image_server(LATENCY, different=rows) as urls,
    ):
        table = write_urls(Path(scratch, "urls.csv"), rows, urls)
        for vectors in ("float32", "float16"):
            output = Path(scratch, vectors)
            words = command(table, output)[3:]
            if score([*words, "--vectors", vectors]):
                raise SystemExit("rows failed")
            report = json.loads((output / "report.json").read_text())
            print(f"{vectors}: {report['bytes'] / report['rows']:,.0f} bytes a row")


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure"])
    for name in ("rows", "rate", "image-bytes", "row-bytes", "failing", "price"):
        parser.add_argument(f"--{name}", type=float)
    options = parser.parse_args()
    if options.what:
        measure(int(options.rows or 2000))
        return
    names = ("rows", "rate", "image_bytes", "row_bytes", "failing", "price")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if not given:
        for lines in (machines_table(), amounts_table(), slots_table()):
            print(*lines, "", sep="\n")
        return
    plan = replace(Plan(1e8, RATES["bf16, PyTorch"]), **given)
    print(f"hours of a machine: {plan.hours:,.0f}; machines for a day: {plan.machines(1):,.0f}")
    for what, formula, amount in amounts(plan):
        print(f"{what}: {amount} ({formula})")
    print(f"downloads allow {slots(Settings(), plan.failing):,.0f} rows/s if all failures time out")
    if plan.price:
        print(f"machines cost {plan.hours * plan.price:,.0f}")


if __name__ == "__main__":
    commands.run(main)
