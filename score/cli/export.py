"""`score export`: a package's files alone, for tools that copy whole folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.folder import EMBEDDED
from score.settings import Settings

HELP = "copy a package, and nothing that lies beside it, to a new folder"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("output", metavar="OUTPUT", help="a folder to create")
    parser.add_argument("--model", default=EMBEDDED, metavar="DIR", help="default: the embedded")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Writes the folder, and prints where it is."""
    from score.jobs.export import export

    print(export(options.model, Path(options.output)))
    return 0
