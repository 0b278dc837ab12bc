"""`score split`: a CSV → shards, for jobs on several machines."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from score.cli.arguments import add_overwrite, positive
from score.console.commands import DONE, Parser
from score.settings import Settings

HELP = "split a CSV into shards, for jobs on several machines"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "input", help="CSV (or .csv.gz) with an image column, a text column or both"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    add_overwrite(parser)
    rows = partial(positive, most=10_000_000)
    parser.add_argument(
        "--rows", type=rows, default=1000, metavar="N", help="rows per shard (1000)"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Writes the shards, and prints their number."""
    from score.jobs.split import split

    source, folder = Path(options.input), Path(options.output)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    shards = split(source, folder, options.rows, overwrite=options.overwrite)
    print(f"{folder}: {len(shards):,} shards of up to {options.rows:,} rows", file=sys.stderr)
    return DONE
