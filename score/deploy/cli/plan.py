"""`score azure plan`: which settings a model gets on a machine size, and whether it fits."""

from __future__ import annotations

import argparse

from score.console.commands import Parser
from score.deploy.cli import flags
from score.deploy.cli.models import EVERY, add_model, architectures
from score.errors import AzureError

HELP = "show the settings that a model gets on a machine size, and whether it fits"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add = parser.add_argument
    add(
        "--rows",
        type=flags.count,
        metavar="N",
        help="images of a job, such as 100e6: how long it takes",
    )
    add("--instances", type=flags.whole, default=1, metavar="N", help="number of machines (1)")
    add(
        "--measured",
        type=float,
        metavar="RATE",
        help="images/s that you measured on such a machine",
    )
    add("--sku", default=EVERY, metavar="SIZE", help="Standard_…, or all (default)")
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the plans, those that fit first; 1 where a single plan does not fit."""
    from score.deploy.plan import plan
    from score.deploy.plan_text import as_text
    from score.deploy.skus import lookup, skus

    every = options.sku == EVERY
    if every and options.measured:
        raise AzureError("a measured rate is of one size: --sku")
    sizes = list(skus().values()) if every else [lookup(options.sku)]
    plans = [
        plan(sku, name, architecture, measured=options.measured)
        for name, architecture in architectures(options.model).items()
        for sku in sizes
    ]
    plans.sort(key=lambda one: not one.fits)
    print("\n".join(as_text(one, options.rows, options.instances) for one in plans))
    return 0 if all(one.fits for one in plans) or len(plans) > 1 else 1
