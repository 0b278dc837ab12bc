"""`score azure smoke`: whether an answer holds the vectors that its request asked for."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from score.console.commands import Parser
from score.errors import AzureError

HELP = "check that an endpoint's answer holds what its request asked for"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("request", type=Path, help="the body that was sent")
    add("answer", type=Path, help="what came back")
    add("--dimension", type=int, required=True, metavar="N", help="of the vectors")


def run(options: argparse.Namespace) -> int:
    """Prints what is wrong with the answer to stderr; 1 where anything is."""
    from score.deploy.smoke import problems

    try:
        request = json.loads(options.request.read_text(encoding="utf-8"))
        answer = options.answer.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise AzureError(f"{options.request}, {options.answer}: {error}") from error
    wrong = problems(request, answer, options.dimension)
    for problem in wrong:
        print(f"{options.request}: {problem}", file=sys.stderr)
    return 1 if wrong else 0
