"""What the verbs that read an index share: arguments, the check of the model, a page's file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from score.console.commands import Parser

if TYPE_CHECKING:
    from score.index.index import Index

ROWS_OUTPUT = "FILE.csv|.parquet|.jsonl"


def add_index(parser: Parser) -> None:
    """The index."""
    parser.add_argument(
        "index", metavar="DIR", help="what `score index` wrote: a folder or its URL"
    )


def add_page(parser: Parser) -> None:
    """`--html FILE.html` and `--root DIR`."""
    parser.add_argument("--html", metavar="FILE.html", help="a page with thumbnails, in one file")
    add_root(parser)


def add_root(parser: Parser) -> None:
    """`--root DIR`."""
    parser.add_argument(
        "--root",
        default=".",
        metavar="DIR",
        help="the page's thumbnails are of files below this folder (the current one)",
    )


def check_outputs(rows: str | None, page: str | None, *, overwrite: bool) -> None:
    """Raises RequestError unless both may be written."""
    from score.errors import RequestError
    from score.index.row_file import check_ending
    from score.storage.outputs import check_files

    if rows:
        check_ending(Path(rows))
    outputs = [Path(output) for output in (rows, page) if output]
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise RequestError(f"--output and --html are the same file, {rows}")
    check_files(outputs, overwrite=overwrite)


def check_model(index: Index, model: str) -> None:
    """Raises RequestError for an index of another model, before this one is loaded."""
    from score.folder.model_folder import ModelFolder

    folder = ModelFolder.open(model)
    if index.fingerprint:
        index.check(folder.architecture.dimension, folder.fingerprint(), folder.name)
        return
    index.check(folder.architecture.dimension)
    print(
        "score: the index does not say which model made its vectors: --model must be that one",
        file=sys.stderr,
    )


def write_text(text: str, output: str) -> None:
    """Writes a file that is complete when it appears. Raises OSError."""
    from score.storage import atomic

    file = Path(output)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.file(file) as part:
        part.write_text(text, encoding="utf-8")


def plural(count: int, one: str) -> str:
    """A count with its noun."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"
