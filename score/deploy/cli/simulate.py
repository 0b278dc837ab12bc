"""`score azure simulate`: runs a deployment, a component or a Dockerfile on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score.console.commands import Parser, add_verb
from score.console.flags import port
from score.deploy.cli import flags
from score.errors import AzureError
from score.folder.model_folder import EMBEDDED

if TYPE_CHECKING:
    from score.deploy.simulate.machine import Machine

HELP = "run a deployment's YAML on this machine, as Azure would"


def add(parser: Parser) -> None:
    """Adds a verb for each kind that can be simulated."""
    kinds = parser.add_subparsers(dest="simulated", required=True, metavar="KIND")
    online = add_verb(kinds, "online", "a real-time deployment, under the server that it chooses")
    batch = add_verb(kinds, "batch", "a batch deployment over a folder of files")
    parallel = add_verb(kinds, "parallel", "a parallel component")
    image = add_verb(kinds, "image", "a Dockerfile's steps, in a virtual environment")
    _add_online(online)
    batch.add_argument(
        "--input", type=Path, required=True, metavar="DIR", help="folder of files, such as CSVs"
    )
    _add_pairs(parallel, "--input", help="an input, for each that it has")
    image.add_argument("folder", type=Path, help="of the Dockerfile, as a clone's environment/cpu")
    image.add_argument("--venv", type=Path, required=True, metavar="DIR", help="where; made anew")
    _add_pairs(image, "--build-arg", help="a value for one of its ARG lines; may be given again")
    for kind in (online, batch, parallel):
        _add_yaml(kind)
    for kind in (online, batch):
        kind.add_argument(
            "--model",
            type=Path,
            default=EMBEDDED.parent,
            metavar="DIR",
            help="the MLflow model that is registered; default: the embedded one",
        )
    for kind in (batch, parallel):
        _add_job(kind)


def _add_online(parser: Parser) -> None:
    add = parser.add_argument
    add("--port", type=port, default=5001, metavar="N", help="default: 5001")
    requests = "ask this, print the answer, and stop; may be given again"
    add("--request", type=Path, action="append", default=[], metavar="FILE", help=requests)
    add("--key", metavar="KEY", help="refuse requests without `Authorization: Bearer KEY`")
    alone = "the container alone, without the endpoint's front end (424, 408, 429, 401)"
    add("--container", action="store_true", help=alone)
    server = "refuse YAML that is not for `score serve` (--no-server: for Azure's server)"
    add("--server", action=argparse.BooleanOptionalAction, help=server)


def _add_pairs(parser: Parser, flag: str, **options: Any) -> None:
    parser.add_argument(
        flag, type=flags.pair, action="append", default=[], metavar="NAME=VALUE", **options
    )


def _add_yaml(parser: Parser) -> None:
    parser.add_argument("yaml", type=Path, help="the deployment's file, or the component's")
    limits = "use no more cores and memory than this size has"
    parser.add_argument("--sku", metavar="SIZE", help=limits)


def _add_job(parser: Parser) -> None:
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    add("--nodes", type=flags.whole, metavar="N", help="machines; default: as written")


def run(options: argparse.Namespace) -> int:
    """Simulates it; 1 for a job that was ended, or a request that was not answered with 200."""
    if options.simulated == "image":
        return _image(options)
    from score.deploy.simulate.machine import Machine
    from score.deploy.skus import lookup

    machine = Machine.like(lookup(options.sku)) if options.sku else None
    if options.simulated == "online":
        return _serve(options, machine)
    return _job(options, machine)


def _job(options: argparse.Namespace, machine: Machine | None) -> int:
    from score.deploy.simulate.batch import batch
    from score.deploy.simulate.parallel import parallel

    if options.simulated == "batch":
        report = batch(
            options.yaml,
            options.input,
            options.output,
            model=options.model,
            nodes=options.nodes,
            machine=machine,
        )
    else:
        report = parallel(
            options.yaml, dict(options.input), options.output, nodes=options.nodes, machine=machine
        )
    print(f"{options.output}: {report}", file=sys.stderr)
    return 1 if report.stopped else 0


def _image(options: argparse.Namespace) -> int:
    from score.deploy.simulate.dockerfile import build, size

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    image = build(options.folder, options.venv, dict(options.build_arg), say)
    say(f"{image.folder}: {size(image.folder) / 2**30:.1f} GiB")
    return 0


def _serve(options: argparse.Namespace, machine: Machine | None) -> int:
    from score.deploy.simulate import client, launch, online

    deployment = launch.read(options.yaml)
    if options.server is not None:
        launch.check_server(deployment, options.server)
    if options.container and options.key is not None:
        raise AzureError("--key is checked by the front end, which --container leaves out")
    for file in options.request:  # before anything is started
        if not file.is_file():
            raise AzureError(f"there is no request file {file}")
    settings = {"model": options.model, "port": options.port, "machine": machine}
    with (
        online.container(deployment, **settings)
        if options.container
        else online.endpoint(deployment, key=options.key, **settings)
    ) as container:
        address = f"http://127.0.0.1:{options.port}"
        if options.container:
            container.wait()
        print(f"{address}/score answers, with the model in {options.model}", file=sys.stderr)
        if not options.request:
            try:
                return container.process.wait()
            except KeyboardInterrupt:
                return 0
        answers = [client.ask(f"{address}/score", file, options.key) for file in options.request]
    for file, answer in zip(options.request, answers, strict=True):
        print(f"{file}: {answer}")
    return 0 if all(answer.status == 200 for answer in answers) else 1
