"""`score azure …`: verbs that plan, write, check and simulate deployments."""

from __future__ import annotations

import argparse
from types import ModuleType

from score.console.commands import Parser, add_verb
from score.console.progress import signals_interrupt
from score.deploy.cli import check, plan, registered, render, simulate, smoke, target
from score.settings import Settings

HELP = "plan and write deployments at Azure ML"

_VERBS: dict[str, ModuleType] = {
    "plan": plan,
    "render": render,
    "target": target,
    "registered": registered,
    "smoke": smoke,
    "check": check,
    "simulate": simulate,
}


def add(parser: Parser) -> None:
    """Adds the verbs below `score azure`."""
    verbs = parser.add_subparsers(dest="azure", required=True, metavar="WHAT")
    for name, verb in _VERBS.items():
        verb.add(add_verb(verbs, name, verb.HELP))


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Runs a verb; returns 0, or 1 if something does not fit, pass or finish."""
    with signals_interrupt():  # so that the processes it has started are ended
        code: int = _VERBS[options.azure].run(options)
        return code
