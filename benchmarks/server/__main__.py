"""The server as its users meet it; each part writes out/bench-server/PART.json and PART.md.

    make bench-server                                       every part, of a random ViT-B/32
    python -m benchmarks.server --quick                     small, of the embedded model
    python -m benchmarks.server rates --before CHECKOUT     beside the code of another checkout
    python -m benchmarks.server overload soak --seconds 60 --minutes 30

The parts:
  rates     1, 8 and 64 clients, beside one stream offline
  beside    64 clients, beside entry scripts under Azure's inference server
  overload  five times as many requests as can be answered
  poison    bad requests among good ones (of the embedded model, unless --model says another)
  slow      slow clients and slow servers of images
  soak      mixed requests for long
  stopping  SIGTERM under load
  killing   kill -9 of one of two worker processes under load

The load, the server and the server of images are processes of their own on this machine: what the
load takes of its cores the server does not have. Ends with code 1 where a part has found a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import fixtures, machine
from benchmarks.server import clients, payloads
from benchmarks.server.context import IMAGES, LATENCY, Context, Report
from benchmarks.server.servers import ROOT
from score.console import commands
from score.folder.model_folder import EMBEDDED

with commands.required_imports(__name__):
    from benchmarks.server import (
        beside,
        killing,
        overload,
        poison,
        rates,
        slow_clients,
        soak,
        stopping,
    )

Options = argparse.Namespace
QUICK = {"seconds": 1.0, "requests": 300, "every": 8, "minutes": 0.5, "times": 2, "texts": 200}


def _rates(context: Context, options: Options) -> Report:
    checkouts = {"now": ROOT}
    if options.before:
        checkouts["before"] = options.before.resolve()
    kinds, turns, texts = options.kinds, options.turns, options.texts
    return rates.measure(context, options.clients, kinds, checkouts, turns, texts)


def _poison(context: Context, options: Options) -> Report:
    model = options.model or EMBEDDED
    return poison.measure(replace(context, model=model), options.requests, options.every)


PARTS: dict[str, Callable[[Context, Options], Report]] = {
    "rates": _rates,
    "beside": lambda context, options: beside.measure(
        context, max(options.clients), options.kinds, options.texts
    ),
    "overload": lambda context, options: overload.measure(context, options.texts),
    "poison": _poison,
    "slow": lambda context, options: slow_clients.measure(context, options.texts),
    "soak": lambda context, options: soak.measure(context, options.minutes),
    "stopping": lambda context, options: stopping.measure(context, options.times, options.texts),
    "killing": lambda context, options: killing.measure(context, options.kills, options.texts),
}


def _options() -> Options:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="small numbers, the embedded model")
    parser.add_argument("--model", type=Path, help="a package; default: a random ViT-B/32")
    parser.add_argument("--precision", default="auto", help="SCORE_PRECISION (auto)")
    parser.add_argument("--engine", default="auto", help="SCORE_ENGINE (auto)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--kinds", choices=payloads.KINDS, nargs="+", default=payloads.KINDS)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="rates: other code, too")
    parser.add_argument("--turns", type=int, default=1, help="rates: measurements of each (1)")
    parser.add_argument("--texts", type=int, default=2000, help="that differ (2000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (10)")
    parser.add_argument("--overload", type=float, default=60.0, help="seconds of overload (60)")
    parser.add_argument("--requests", type=int, default=10_000, help="poison: in all (10,000)")
    parser.add_argument("--every", type=int, default=1, help="poison: each so manieth case (1)")
    parser.add_argument("--minutes", type=float, default=30.0, help="soak (30)")
    parser.add_argument("--times", type=int, default=50, help="stopping: servers (50)")
    parser.add_argument("--kills", type=int, default=5, help="killing: workers (5)")
    parser.add_argument("--output", type=Path, default=Path("out/bench-server"))
    parser.set_defaults(**_quick() if "--quick" in sys.argv else {})
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return options


def _quick() -> dict[str, object]:
    return {**QUICK, "overload": 2.0, "kills": 1, "model": EMBEDDED, "clients": [1, 8]}


def main() -> None:
    options = _options()
    environment = {
        "SCORE_PRECISION": options.precision,
        "SCORE_ENGINE": options.engine,
        "SCORE_ALLOW_HOSTS": fixtures.HERE,
    }
    with tempfile.TemporaryDirectory() as scratch:
        model = fixtures.model(options.model, Path(scratch))
        with fixtures.image_server(LATENCY, different=IMAGES) as urls, clients.load() as load:
            context = Context(model, environment, load, urls, options.seconds)
            found = [_measured(part, context, options) for part in options.parts or PARTS]
    sys.exit(any(found))


def _measured(part: str, context: Context, options: Options) -> bool:
    """Measures a part, writes and prints what it found; whether that includes a fault."""
    if part == "overload":
        context = replace(context, seconds=options.overload)
    busy = os.getloadavg()[0]
    print(f"\n{part}\n", flush=True)
    report = PARTS[part](context, options)
    described = {**machine.described(), "load": busy, "arguments": sys.argv[1:]}
    options.output.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"machine": described, **asdict(report)}, indent=1) + "\n"
    (options.output / f"{part}.json").write_text(content)
    (options.output / f"{part}.md").write_text(report.table(), encoding="utf-8")
    print(report.table(), flush=True)
    return bool(report.faults)


if __name__ == "__main__":
    commands.run(main)
