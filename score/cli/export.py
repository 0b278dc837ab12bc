"""`score export`: copies only a package's files, for tools that copy whole folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.cli.arguments import add_overwrite
from score.console.commands import DONE, Parser
from score.folder.model_folder import EMBEDDED
from score.settings import Settings

HELP = "copy a package, without other files in its folder, to a new folder"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        default=EMBEDDED,
        metavar="DIR",
        help="package; default: the embedded model",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a folder to create")
    add_overwrite(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Writes the folder, and prints its path."""
    from score.package.export import export

    print(export(options.model, Path(options.output), overwrite=options.overwrite))
    return DONE
