"""`score verify`: compares the outputs of a package on this machine with its probes."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.cli.arguments import add_settings
from score.console.commands import DONE, TOO_MANY_ERRORS, Parser, say
from score.settings import Settings

HELP = "compare a package's outputs on this machine with the reference's"

_SETTINGS = ("device", "precision", "engine", "cache", "batch_size", "log_level")


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("model", metavar="DIR", help="a folder that `score package` wrote")
    add_settings(parser, _SETTINGS)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints a line for each probe."""
    from score.core.verify import table, verify

    probes, computed, findings = verify(Path(options.model), settings)
    print(table(findings))
    broken = [finding for finding in findings if not finding.passed]
    against = f"{computed} here against {probes.reference}"
    if broken:
        say(f"{len(broken)} of {len(findings)} probes FAILED; {against}")
        return TOO_MANY_ERRORS
    print(f"all {len(findings)} probes as promised; {against}")
    return DONE
