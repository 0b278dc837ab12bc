"""`score azure check`: whether Azure would accept YAML files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from score.console.commands import Parser
from score.errors import AzureError
from score.folder.model_folder import EMBEDDED

HELP = "check that Azure ML would accept YAML files"

_PATHS = (
    "a YAML file, or a folder of them; default in a clone of clip-endpoints: all of its own; "
    "an installed package has no default"
)


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("folder", type=Path, nargs="*", metavar="PATH", help=_PATHS)


def run(options: argparse.Namespace) -> int:
    """Prints problems to stdout and notes to stderr; 1 where there are problems."""
    from score.deploy.check import findings

    root = EMBEDDED.parent
    own = [root / "components", root / "environment", root / "samples" / "azure"]
    if not options.folder and not own[0].is_dir():  # an installed wheel has none of these
        raise AzureError(
            "name the YAML file or folder to check: only in a clone is there a default"
        )
    result = findings(options.folder, beside=own) if options.folder else findings(own)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in result.problems:
        print(problem)
    number, files = len(result.problems), result.files
    print(
        f"{number or 'no'} problem{'s' * (number != 1)} in {files} file{'s' * (files != 1)}",
        file=sys.stderr,
    )
    return 1 if number else 0
