"""`score index`: a table of vectors → a folder for `score search`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from score.cli.arguments import add_overwrite
from score.console.commands import DONE, Parser
from score.settings import Settings

HELP = "make a table of vectors searchable"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("table", help="a .parquet file of `score embed` or `score merge`")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    add_overwrite(parser)
    parser.add_argument(
        "--column",
        choices=("image_features", "text_features"),
        default="image_features",
        help="the vectors to index",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Builds the index, and prints the number of its vectors."""
    from score.index.index import build_index

    table, folder = Path(options.table), Path(options.output)
    count = build_index(table, folder, options.column, overwrite=options.overwrite)
    print(f"{folder}: {count:,} vectors", file=sys.stderr)
    return DONE
