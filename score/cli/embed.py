"""`score embed`: the rows of a table, or the images of a folder → a file of vectors."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.cli.arguments import add_job, add_model, add_overwrite, add_settings
from score.cli.job_progress import print_summary, row_progress
from score.console.commands import Parser, say
from score.errors import RequestError
from score.settings import Settings

HELP = "embed the rows of a CSV or parquet file, or a folder of images"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "input",
        help="CSV (or .csv.gz) or parquet with an image column, a text column or both; or folder "
        "of images",
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="a .parquet, .csv, .jsonl or .npy file"
    )
    add_overwrite(parser)
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="folder below which image cells may name files; default: the table's folder",
    )
    add_model(parser)
    parser.add_argument("--normalize", action="store_true", help="scale vectors to unit length")
    parser.add_argument(
        "--truncate",
        choices=("end", "error"),
        default="end",
        help="texts longer than the model's context: cut them, or count them as failed (end)",
    )
    add_job(parser)
    add_settings(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Checks the arguments before the model is loaded; then embeds."""
    from score.contract.params import Params
    from score.core.embedder import Embedder
    from score.jobs.embed import embed_lines
    from score.jobs.line_source import open_lines
    from score.jobs.summary import Summary
    from score.storage.outputs import check_files
    from score.tables.base_writer import replaced
    from score.tables.writers import writer_for

    source, output = Path(options.input), Path(options.output)
    writer = writer_for(output)
    check_files(writer.files_of(output), overwrite=options.overwrite, inputs=[source])
    params = Params(normalize=options.normalize, truncate=options.truncate, on_error="report")
    summary = Summary()
    with open_lines(source) as lines:
        if options.root:
            lines.root = _folder(options.root, source)
        if lost := replaced(lines.columns, writer.reserved):
            say(f"{source.name} is a table of results: its columns {', '.join(lost)} are replaced")
        embedder = Embedder.load(options.model, settings)
        with row_progress(summary, lines.size, quiet=options.quiet) as show:
            embed_lines(embedder, lines, output, params, show, summary)
    return print_summary(output, summary, options.max_errors)


def _folder(root: str, source: Path) -> Path:
    """The folder of a table's images. Raises RequestError."""
    if source.is_dir():
        raise RequestError("--root is for tables: a folder's images are below the folder")
    if not Path(root).is_dir():
        raise RequestError(f"--root: no such folder: {root}")
    return Path(root)
