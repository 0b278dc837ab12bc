"""`score search`: the rows of an index nearest to a text or an image."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from score.cli.arguments import add_overwrite, add_settings, positive
from score.cli.index_arguments import add_index, add_root, check_model, write_text
from score.console.commands import DONE, Parser
from score.errors import RequestError
from score.folder.model_folder import EMBEDDED
from score.settings import Settings

if TYPE_CHECKING:
    from score.index.index import Hit

HELP = "find the rows of an index nearest to a text or an image"
REMOTE = ("index", "query")

_NO_FILE = re.compile(r"(https?|data):|[A-Za-z0-9+/_=\s-]{100,}", re.IGNORECASE)
_IMAGE_FILE = re.compile(r".+\.(avif|bmp|gif|jpe?g|jp2|png|tiff?|webp)", re.IGNORECASE)


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add_index(parser)
    parser.add_argument(
        "query", nargs="?", help="a text, or an image's file by its ending; or use --image"
    )
    parser.add_argument("--image", metavar="IMAGE", help="an image's file, URL or base64")
    parser.add_argument("--top", type=positive, default=10, metavar="K", help="rows (10)")
    parser.add_argument(
        "--where", metavar="SQL", help="a condition on the columns: \"price < 50 AND shop = 'a'\""
    )
    parser.add_argument(
        "--format",
        choices=("json", "table", "html"),
        default="json",
        help="lines of JSON (default), a table, or a page with thumbnails",
    )
    parser.add_argument("--output", metavar="FILE", help="where to write it; default: stdout")
    add_overwrite(parser)
    add_root(parser)
    parser.add_argument(
        "--model",
        default=EMBEDDED,
        metavar="DIR",
        help="model that embedded the table",
    )
    add_settings(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints or writes the rows."""
    from score.core.embedder import Embedder
    from score.index.index import Index
    from score.storage.outputs import check_files

    text, image = _query(options)
    if options.output:
        check_files([Path(options.output)], overwrite=options.overwrite)
    index = Index(options.index)
    check_model(index, options.model)
    if options.where is not None:
        index.check_condition(options.where)
    embedder = Embedder.load(options.model, settings)
    query = embedder.embed_text(text) if image is None else embedder.embed_image(image)
    hits = index.search(query, options.top, where=options.where)
    _write(_rendered(hits, text, image, options), options)
    return DONE


def _query(options: argparse.Namespace) -> tuple[str, Path | str | None]:
    """The text, or the image. Raises RequestError, FileNotFoundError."""
    if (options.query is None) == (options.image is None):
        raise RequestError("search takes a text or --image IMAGE, one of them")
    if options.image is not None:
        return "", _image(options.image)
    if _IMAGE_FILE.fullmatch(options.query):
        return "", _image(options.query)
    return options.query, None


def _image(value: str) -> Path | str:
    """A file's path, or a URL or base64 as it is. Raises FileNotFoundError."""
    if _NO_FILE.match(value):
        return value
    if not Path(value).is_file():
        raise FileNotFoundError(f"no such file: {value}")
    return Path(value)


def _rendered(
    hits: list[Hit], text: str, image: Path | str | None, options: argparse.Namespace
) -> str:
    from score.index.listing import as_json, as_table, shown

    if options.format == "json":
        return "".join(f"{as_json(hit)}\n" for hit in hits)
    if options.format == "table":
        return "".join(f"{line}\n" for line in as_table(hits))
    from score.index.contact_sheet import as_html

    title = shown(str(image), 80) if image is not None else f"“{shown(text, 80)}”"
    where = f", where {options.where}" if options.where else ""
    return as_html(title, f"{len(hits)} rows of {options.index}{where}", hits, Path(options.root))


def _write(text: str, options: argparse.Namespace) -> None:
    if not options.output:
        print(text, end="")
        return
    write_text(text, options.output)
