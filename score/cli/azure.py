"""`score azure`: deployments at Azure ML, planned, written, checked and tried here."""

from __future__ import annotations

import argparse

from score.console.commands import Parser
from score.console.progress import sigterm_interrupts
from score.deploy import cli
from score.settings import Settings

HELP = "plan and write deployments at Azure ML"


def add(parser: Parser) -> None:
    """Adds the verbs below."""
    cli.add(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Runs one of them."""
    with sigterm_interrupts():  # the processes that it starts are ended with it
        return cli.run(options)
