"""`score azure target`, `registered`, `smoke`: what the scripts of samples/azure ask on the way."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from score.errors import AzureError


def add(verbs: Any) -> None:
    """Adds the verbs to those below `score azure`."""
    target = verbs.add_parser("target", help="size, kind and cluster that a deployment is for")
    target.add_argument("kind", nargs="?", help="cpu or gpu; default: what the size is")
    target.add_argument("--sku", metavar="SIZE", help="default: a small one of the kind")
    target.add_argument("--tier", metavar="TIER", help="of the cluster: dedicated or low_priority")
    registered = verbs.add_parser("registered", help="name and version of a registered model")
    registered.add_argument("shown", type=Path, help="what `az ml model show` printed")
    smoke = verbs.add_parser("smoke", help="whether an endpoint's answer is what was asked for")
    smoke.add_argument("request", type=Path, help="the body that was sent")
    smoke.add_argument("answer", type=Path, help="what came back")
    smoke.add_argument("--dimension", type=int, required=True, metavar="N", help="of the vectors")


def target(options: argparse.Namespace) -> int:
    """Prints size, kind and cluster, a space between them."""
    from score.deploy.target import target as target_of

    found = target_of(options.kind, options.sku, options.tier)
    print(found.size, found.kind, found.cluster)
    return 0


def registered(options: argparse.Namespace) -> int:
    """Prints a model's name, version, and whether it is `described` or `silent` on what it is."""
    from score.deploy.registered import read

    found = read(options.shown)
    print(found.name, found.version, "described" if found.architecture else "silent")
    return 0


def smoke(options: argparse.Namespace) -> int:
    """Names what is wrong with an answer; 1 where anything is."""
    from score.deploy.smoke import problems

    try:
        request = json.loads(options.request.read_text(encoding="utf-8"))
        answer = options.answer.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise AzureError(f"{options.request}, {options.answer}: {error}") from error
    found = problems(request, answer, options.dimension)
    for problem in found:
        print(f"{options.request}: {problem}", file=sys.stderr)
    return 1 if found else 0
