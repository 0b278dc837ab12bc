"""`score azure simulate`: a deployment, a component or an image, on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from score.console.flags import port
from score.deploy import flags
from score.errors import AzureError
from score.folder.model_folder import EMBEDDED

if TYPE_CHECKING:  # the command line is wanted without it, too
    from score.deploy.harness import Machine


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what can be simulated."""
    kinds = parser.add_subparsers(dest="simulated", required=True, metavar="KIND")
    online = kinds.add_parser("online", help="a real-time deployment, under Azure's server")
    online.add_argument("--port", type=port, default=5001, metavar="N", help="default: 5001")
    online.add_argument(
        "--request",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="ask this, print the answer, and stop; may be given again",
    )
    online.add_argument(
        "--key", metavar="KEY", help="refuse requests without `Authorization: Bearer KEY`"
    )
    online.add_argument(
        "--container",
        action="store_true",
        help="the container alone, without the endpoint's front end (424, 408, 429, 401)",
    )
    batch = kinds.add_parser("batch", help="a batch deployment over a folder of files")
    batch.add_argument("--input", type=Path, required=True, metavar="DIR", help="of CSVs, say")
    parallel = kinds.add_parser("parallel", help="a parallel component")
    parallel.add_argument(
        "--input",
        type=flags.pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input, for each that it has",
    )
    image = kinds.add_parser("image", help="a Dockerfile's steps, in a virtual environment")
    image.add_argument("folder", type=Path, help="with the Dockerfile: environment/cpu")
    image.add_argument(
        "--venv",
        type=Path,
        required=True,
        metavar="DIR",
        help="where; made anew",
    )
    image.add_argument(
        "--build-arg", type=flags.pair, action="append", default=[], metavar="NAME=VALUE"
    )
    for kind in (online, batch, parallel):
        kind.add_argument("yaml", type=Path, help="the deployment's file, or the component's")
        kind.add_argument(
            "--sku", metavar="SIZE", help="use no more cores and memory than this size has"
        )
    for kind in (online, batch):
        kind.add_argument(
            "--model",
            type=Path,
            default=EMBEDDED.parent,
            metavar="DIR",
            help="the MLflow model that is registered; default: the embedded one",
        )
    for kind in (batch, parallel):
        kind.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
        kind.add_argument(
            "--nodes", type=flags.whole, metavar="N", help="machines; default: as written"
        )


def run(options: argparse.Namespace) -> int:
    """Simulates it, and returns the exit code: 0, or 1 for what did not finish or pass."""
    if options.simulated == "image":
        return _image(options)
    from score.deploy import harness
    from score.deploy.skus import lookup

    machine = harness.Machine.like(lookup(options.sku)) if options.sku else None
    if options.simulated == "online":
        return _serve(options, machine)
    if options.simulated == "batch":
        report = harness.batch(
            options.yaml,
            options.input,
            options.output,
            model=options.model,
            nodes=options.nodes,
            machine=machine,
        )
    else:
        report = harness.parallel(
            options.yaml, dict(options.input), options.output, nodes=options.nodes, machine=machine
        )
    print(f"{options.output}: {report}", file=sys.stderr)
    return 1 if report.stopped else 0


def _image(options: argparse.Namespace) -> int:
    from score.deploy.image import build, size

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    image = build(options.folder, options.venv, dict(options.build_arg), say)
    say(f"{image.folder}: {size(image.folder) / 2**30:.1f} GiB")
    return 0


def _serve(options: argparse.Namespace, machine: Machine | None) -> int:
    from score.deploy import harness

    if options.container and options.key is not None:
        raise AzureError("--key is the front end's to ask for: without --container")
    for file in options.request:  # before anything is started
        if not file.is_file():
            raise AzureError(f"there is no request file {file}")
    given = {"model": options.model, "port": options.port, "machine": machine}
    with (
        harness.online(options.yaml, **given)
        if options.container
        else harness.endpoint(options.yaml, key=options.key, **given)
    ) as process:
        address = f"http://127.0.0.1:{options.port}"
        if options.container:
            harness.wait(address, process)
        print(f"{address}/score answers", file=sys.stderr)
        if not options.request:
            try:
                return process.wait()
            except KeyboardInterrupt:
                return 0
        answers = [harness.ask(f"{address}/score", file, options.key) for file in options.request]
    for file, answer in zip(options.request, answers, strict=True):
        print(f"{file}: {answer}")
    return 0 if all(answer.status == 200 for answer in answers) else 1
