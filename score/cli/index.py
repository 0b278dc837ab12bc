"""`score index`: tables of vectors → a folder for `score search`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from score.cli.arguments import add_overwrite
from score.console.commands import DONE, Parser
from score.errors import RequestError
from score.settings import Settings
from score.storage.remote import is_remote

HELP = "make tables of vectors searchable"
REMOTE = ("output",)


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "table",
        nargs="+",
        help="a .parquet file of `score embed` or `score merge`, a folder of them or a pattern",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", metavar="DIR", help="a new folder, also in an object store")
    target.add_argument(
        "--push",
        metavar="URL",
        help="an index of Azure AI Search, https://NAME.search.windows.net/indexes/INDEX; "
        "AZURE_SEARCH_KEY holds the admin key",
    )
    add_overwrite(parser)
    parser.add_argument(
        "--append",
        action="store_true",
        help="add the files that are not yet in the index at --output, and replace the rows of "
        "those that have changed",
    )
    parser.add_argument(
        "--column",
        choices=("image_features", "text_features"),
        default="image_features",
        help="the vectors to index",
    )
    parser.add_argument(
        "--export",
        choices=("npy",),
        help="write vectors.npy and rows.parquet, for FAISS, in place of an index",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Builds the index, and prints the number of its vectors."""
    if options.push is not None:
        return _push(options)
    is_url = is_remote(options.output)
    folder = options.output if is_url else Path(options.output)
    if is_url and (options.append or options.overwrite or options.export):
        raise RequestError(
            "--append, --overwrite and --export are for a folder here, not for one in an object "
            "store: change the index here, and write it to a new URL"
        )
    if options.append and (options.overwrite or options.export):
        raise RequestError(
            "--append adds to an index: it goes with neither --overwrite nor --export"
        )
    if options.export:
        from score.index.npy_export import export_npy

        count = export_npy(options.table, Path(folder), options.column, overwrite=options.overwrite)
    else:
        from score.index.build import build_index

        count = build_index(
            options.table,
            folder,
            options.column,
            overwrite=options.overwrite,
            append=options.append,
        )
    written = " written" if options.append else ""  # in the place of older ones, too
    print(f"{folder}: {count:,} vectors{written}", file=sys.stderr)
    return DONE


def _push(options: argparse.Namespace) -> int:
    from score.index.azure_search import KEY_VARIABLE, push

    if options.append or options.overwrite or options.export:
        raise RequestError("--push goes with none of --append, --overwrite and --export")
    count = push(options.table, options.push, os.environ.get(KEY_VARIABLE, ""), options.column)
    print(f"{options.push}: {count:,} vectors", file=sys.stderr)
    return DONE
