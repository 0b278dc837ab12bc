"""`score azure registered`: which model `az ml model show` printed, for the scripts of
samples/azure."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.console.commands import Parser

HELP = "print the name and version of a registered model"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("shown", type=Path, help="what `az ml model show` printed")


def run(options: argparse.Namespace) -> int:
    """Prints name, version, and `described` if the model's properties hold its architecture, else
    `silent`."""
    from score.deploy.registered import read

    model = read(options.shown)
    print(model.name, model.version, "described" if model.architecture else "silent")
    return 0
