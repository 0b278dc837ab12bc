"""`score key`: the API keys that `score serve` accepts."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from score.cli.arguments import positive
from score.console.commands import DONE, Parser, add_verb, say
from score.errors import RequestError
from score.serve import keys
from score.settings import Settings
from score.validation.paths import path_of

HELP = "make, list and revoke the API keys of `score serve`"


def add(parser: Parser) -> None:
    """Adds the verbs below `score key`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    new = add_verb(verbs, "new", "make a key, and print it: it is shown this once")
    new.add_argument("name", metavar="NAME", help="whose key it is, such as web or alice")
    new.add_argument(
        "--per-minute",
        type=partial(positive, most=10**6),
        metavar="N",
        help="most requests a minute with it; default: no limit",
    )
    listing = add_verb(verbs, "list", "print the names, dates and limits of the keys")
    revoke = add_verb(verbs, "revoke", "remove a key; servers refuse it a second later")
    revoke.add_argument("name", metavar="NAME", help="the name that `score key new` was given")
    for verb in (new, listing, revoke):
        verb.add_argument("--file", help="the file of keys; default: SCORE_API_KEYS_FILE")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Runs a verb on the file of keys."""
    name = options.file or settings.api_keys_file
    if not name:
        raise RequestError("name the file of keys: --file FILE, or SCORE_API_KEYS_FILE")
    file = path_of("--file" if options.file else "SCORE_API_KEYS_FILE", name)
    if options.what == "new":
        print(keys.new(file, options.name, options.per_minute))
        say(f"{file} holds its hash alone: keep the key, it cannot be shown again")
    elif options.what == "list":
        _list(file)
    else:
        keys.revoke(file, options.name)
    return DONE


def _list(file: Path) -> None:
    held = keys.read(file)
    width = max([len("name"), *(len(key.name) for key in held)])
    print(f"{'name':{width}}  created     per minute")
    for key in held:
        print(f"{key.name:{width}}  {key.created}  {key.per_minute or 'no limit'}")
