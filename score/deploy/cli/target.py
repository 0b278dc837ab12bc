"""`score azure target`: size, kind and cluster of a deployment, for samples/azure."""

from __future__ import annotations

import argparse

from score.console.commands import Parser

HELP = "print the machine size, kind and cluster of a deployment"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("kind", nargs="?", help="cpu or gpu; default: what the size is")
    add("--sku", metavar="SIZE", help="default: a small one of the kind")
    add("--tier", metavar="TIER", help="of the cluster: dedicated or low_priority")


def run(options: argparse.Namespace) -> int:
    """Prints size, kind and cluster, a space between them."""
    from score.deploy.target import target

    result = target(options.kind, options.sku, options.tier)
    print(result.size, result.kind, result.cluster)
    return 0
