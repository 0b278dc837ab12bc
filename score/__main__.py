"""The command line: one verb a job, each a module of `score.cli`. `score VERB --help` tells its
options.

Exit codes: 0 done, 1 finished with more errors than allowed, 2 unusable arguments or input.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from score.cli import (
    azure,
    catalog,
    embed,
    evaluate,
    export,
    index,
    label,
    merge,
    package,
    register,
    search,
    serve,
    split,
    verify,
)
from score.cli.arguments import settings
from score.console.commands import Parser, guarded

_VERBS: dict[str, ModuleType] = {
    "embed": embed,
    "label": label,
    "split": split,
    "merge": merge,
    "index": index,
    "search": search,
    "serve": serve,
    "package": package,
    "catalog": catalog,
    "verify": verify,
    "export": export,
    "register": register,
    "azure": azure,
    "evaluate": evaluate,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    chosen = settings(options, os.environ)
    logging.getLogger("score").setLevel(chosen.log_level.upper())
    code: int = _VERBS[options.verb].run(options, chosen)
    return code


def _parser() -> Parser:
    parser = Parser(prog="score", description="CLIP embeddings of images and texts.")
    parser.add_argument("--version", action="version", version=f"score {_version()}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in _VERBS.items():
        verb.add(verbs.add_parser(name, help=verb.HELP))
    return parser


def _version() -> str:
    try:
        return version("clip-endpoints")
    except PackageNotFoundError:  # run from a folder that was copied, not installed
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
