"""`score search`: the rows of an index nearest to a text or an image."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from score.cli.arguments import add_settings, positive
from score.console.commands import DONE, Parser
from score.errors import RequestError
from score.folder.model_folder import EMBEDDED
from score.settings import Settings

HELP = "find the rows of an index nearest to a text or an image"

_NO_FILE = re.compile(r"(https?|data):|[A-Za-z0-9+/_=\s-]{100,}", re.IGNORECASE)


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("index", metavar="DIR", help="what `score index` wrote")
    parser.add_argument("query", nargs="?", help="a text; or use --image")
    parser.add_argument("--image", metavar="IMAGE", help="an image's file, URL or base64")
    parser.add_argument("--top", type=positive, default=10, metavar="K", help="rows (10)")
    parser.add_argument(
        "--model",
        default=EMBEDDED,
        metavar="DIR",
        help="model that embedded the table",
    )
    add_settings(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints a line of JSON for each result."""
    from score.core.embedder import Embedder
    from score.folder.model_folder import ModelFolder
    from score.index.index import Index

    if (options.query is None) == (options.image is None):
        raise RequestError("search takes a text or --image IMAGE, one of them")
    image = None if options.image is None else _image(options.image)
    index = Index(Path(options.index))
    index.check(ModelFolder.open(options.model).architecture.dimension)
    embedder = Embedder.load(options.model, settings)
    query = embedder.embed_text(options.query) if image is None else embedder.embed_image(image)
    for hit in index.search(query, options.top):
        print(json.dumps({"score": round(hit.score, 4), **hit.row}, ensure_ascii=False))
    return DONE


def _image(value: str) -> Path | str:
    """A file's path, or a URL or base64 as it is. Raises FileNotFoundError."""
    if _NO_FILE.match(value):
        return value
    if not Path(value).is_file():
        raise FileNotFoundError(f"no such file: {value}")
    return Path(value)
