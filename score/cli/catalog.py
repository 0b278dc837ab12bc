"""`score catalog`: the checkpoints known by name."""

from __future__ import annotations

import argparse
import json

from score.console.commands import DONE, UNUSABLE, Parser, say
from score.settings import Settings
from score.wording.suggestions import suggestion

HELP = "list the checkpoints known by name"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("name", nargs="?", help="show all facts about this one")
    parser.add_argument("--json", action="store_true", help="all facts, as JSON")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints the catalog, or all facts about one entry."""
    from score.checkpoints import catalog

    name = options.name
    if name is None:
        every = [catalog.as_json(one) for one in catalog.CATALOG]
        print(json.dumps(every, indent=2) if options.json else catalog.table())
        return DONE
    entry = catalog.lookup(name)
    if entry is None:
        known = ", ".join(catalog.CATALOG)
        hint = suggestion(name, catalog.CATALOG)
        say(f"{name!r} is not in the catalog: {known}{hint}")
        return UNUSABLE
    if options.json:
        names = {one.hub: name for name, one in catalog.CATALOG.items()}
        print(json.dumps(catalog.as_json(names[entry.hub]), indent=2))
    else:
        print(catalog.describe(entry))
    return DONE
