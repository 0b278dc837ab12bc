"""The command line: one verb a job, each a module of `score.cli`. `score VERB --help` tells its
options.

Exit codes: 0 done, 1 finished with more errors than allowed, 2 unusable arguments or input.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from types import ModuleType

from score import __version__
from score.cli import VERBS
from score.cli.arguments import check_local, settings
from score.console.commands import (
    UNUSABLE,
    LogUntilConfigured,
    Parser,
    add_verb,
    exit_code_of,
    leave_at_once,
    log_to_stderr,
    say,
)
from score.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code. arguments: by default those of the process,
    which may be ended then."""
    words = sys.argv[1:] if arguments is None else arguments
    code = exit_code_of(lambda: _run(words))
    if arguments is None and "lancedb" in sys.modules:
        # Its threads may call Python while the interpreter is being taken down, which aborts.
        leave_at_once(code)
    return code


def _run(words: Sequence[str]) -> int:
    verb = _verb(words)
    if verb in VERBS and not _is_here(verb):
        say(f"`score {verb}` is not part of a package: install clip-endpoints for it")
        return UNUSABLE
    # Only the verb that is asked for is imported; for help, or a word that is none, all are.
    verbs = [verb] if verb in VERBS else [name for name in VERBS if _is_here(name)]
    modules = {name: importlib.import_module(_module(name)) for name in verbs}
    options = _parser(modules).parse_args(words)
    verb_module = modules[options.verb]
    check_local(options, getattr(verb_module, "REMOTE", ()))
    log = LogUntilConfigured()  # the settings, of which unknown ones are logged, say how
    with log:
        chosen = settings(options, os.environ)
    getattr(verb_module, "configure_log", _configure_log)(chosen)
    log.write()
    code: int = verb_module.run(options, chosen)
    return code


def _configure_log(chosen: Settings) -> None:
    """Of a verb that has no log of its own kind."""
    log_to_stderr(chosen.log_level)


def _verb(words: Sequence[str]) -> str:
    """The first word that is no flag; none after `--help`, which then lists all verbs."""
    before = takewhile(lambda word: word not in ("-h", "--help"), words)
    return next((word for word in before if not word.startswith("-")), "")


def _is_here(verb: str) -> bool:
    """Whether a verb's module is: a package carries those that it needs to serve."""
    return importlib.util.find_spec(_module(verb)) is not None


def _module(verb: str) -> str:
    return f"score.cli.{verb}"


def _parser(modules: dict[str, ModuleType]) -> Parser:
    parser = Parser(prog="score", description="CLIP embeddings of images and texts.")
    parser.add_argument("--version", action="version", version=f"score {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in modules.items():
        module.add(add_verb(verbs, name, module.HELP))
    return parser


if __name__ == "__main__":
    sys.exit(main())
