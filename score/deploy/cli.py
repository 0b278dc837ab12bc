"""`score azure …`: plan, render, check, simulate."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score.errors import AzureError, meant
from score.folder import EMBEDDED, ModelFolder
from score.outputs import check_files

if TYPE_CHECKING:  # the command line is wanted without these, too
    from score.architecture import Architecture
    from score.deploy.harness import Machine
    from score.deploy.render import Card

EVERY = "all"
_EMBEDDED_NAME = "the embedded model"
# What else `render` takes, and for what.
_CHOICES = {
    "sku": ("online", "batch", "cluster", "autoscale"),
    "code": ("online", "batch"),
    "name": ("online", "batch", "cluster"),
    "cluster": ("batch",),
    "tier": ("cluster",),
    "instances": ("online", "batch", "cluster", "autoscale"),
    "most": ("autoscale",),
    "path": ("model",),
    "registered": ("online", "batch", "model"),
}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verbs below `score azure`."""
    verbs = parser.add_subparsers(dest="azure", required=True, metavar="WHAT")
    plan = verbs.add_parser("plan", help="settings for a model on a size of machine: does it fit?")
    plan.add_argument("--rows", type=_count, metavar="N", help="pictures of a job: 100e6")
    plan.add_argument("--instances", type=_whole, default=1, metavar="N", help="machines (1)")
    plan.add_argument(
        "--measured", type=float, metavar="RATE", help="pictures/s that such a machine does"
    )
    plan.add_argument("--sku", default=EVERY, metavar="SIZE", help="Standard_…, or all (default)")
    rendered = verbs.add_parser(
        "render", help="YAML: of a model, a deployment that fits, a cluster; autoscale rules"
    )
    rendered.add_argument("kind", choices=("online", "batch", "model", "cluster", "autoscale"))
    rendered.add_argument("--output", type=Path, metavar="FILE", help="default: printed")
    rendered.add_argument("--sku", metavar="SIZE", help="of the machines: Standard_…")
    rendered.add_argument("--path", metavar="DIR", help="model: its folder, seen from the YAML")
    rendered.add_argument("--code", metavar="DIR", help="the clone, seen from the YAML (.)")
    rendered.add_argument("--name", metavar="NAME", help="the deployment's (cpu or gpu)")
    rendered.add_argument("--registered", metavar="NAME", help="the model's in a workspace (clip)")
    rendered.add_argument("--cluster", metavar="NAME", help="batch: the compute's (clip-cpu, …)")
    rendered.add_argument(
        "--instances",
        type=_whole,
        metavar="N",
        help="machines (1); of a cluster at most (4), by autoscale rules at least (3)",
    )
    rendered.add_argument(
        "--most", type=_whole, metavar="N", help="autoscale: machines at most (twice the least)"
    )
    rendered.add_argument(
        "--tier", choices=("dedicated", "low_priority"), help="cluster: what Azure may take away"
    )
    rendered.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    for verb in (plan, rendered):
        verb.add_argument(
            "--model",
            metavar="NAME|DIR",
            help="of the catalog, or a folder; or all; default: the embedded one",
        )
    checked = verbs.add_parser("check", help="whether YAML is what Azure's own SDK would take")
    checked.add_argument("folder", type=Path, nargs="*", help="default: all that is in the clone")
    _add_simulate(verbs.add_parser("simulate", help="run a deployment's YAML here, as Azure would"))


def _add_simulate(parser: argparse.ArgumentParser) -> None:
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
        type=_pair,
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
    image.add_argument("--build-arg", type=_pair, action="append", default=[], metavar="NAME=VALUE")
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
            help="the MLflow model that is registered; default: this clone",
        )
    for kind in (batch, parallel):
        kind.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
        kind.add_argument("--nodes", type=_whole, metavar="N", help="machines; default: as written")


def run(options: argparse.Namespace) -> int:
    """Runs a verb, and returns the exit code: 0, or 1 for what does not fit, pass or finish."""
    verbs = {"plan": _plan, "render": _render, "check": _check, "simulate": _simulate}
    return verbs[options.azure](options)


def _plan(options: argparse.Namespace) -> int:
    from score.deploy import plan as planning
    from score.deploy.skus import lookup, skus

    every = options.sku == EVERY
    if every and options.measured:
        raise AzureError("a measured rate is of one size: --sku")
    sizes = list(skus().values()) if every else [lookup(options.sku)]
    models = _architectures(options.model)
    plans = [
        planning.plan(sku, name, made, measured=options.measured)
        for name, made in models.items()
        for sku in sizes
    ]
    plans.sort(key=lambda one: not one.fits)  # what fits comes first
    print("\n".join(planning.as_text(one, options.rows, options.instances) for one in plans))
    return 0 if all(one.fits for one in plans) or len(plans) > 1 else 1


def _render(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in _CHOICES if getattr(options, name)}
    for name in given:
        if options.kind not in _CHOICES[name]:
            raise AzureError(f"--{name} has no meaning for render {options.kind}")
    if options.output:
        check_files([options.output], overwrite=options.overwrite)
    told = {"model": options.model, **given} if options.model else given
    command = " ".join([options.kind, *(f"--{name} {value}" for name, value in told.items())])
    writers: dict[str, Callable[..., str]]
    writers = {"model": _model_yaml, "online": _deployment_yaml, "batch": _deployment_yaml}
    writers |= {"cluster": _scaling, "autoscale": _scaling}
    text = writers[options.kind](options, command, **given)
    if options.output is None:
        print(text, end="")
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
        print(options.output, file=sys.stderr)
    return 0


def _deployment_yaml(
    options: argparse.Namespace, command: str, sku: str = "", **choices: object
) -> str:
    from score.deploy.plan import plan
    from score.deploy.render import render
    from score.deploy.skus import lookup

    if not sku:
        raise AzureError("a deployment is for one size: --sku")
    made = plan(lookup(sku), *_one(options.model))
    return render(made, options.kind, command=command, **choices)  # type: ignore[arg-type]


def _scaling(options: argparse.Namespace, command: str, sku: str = "", **choices: Any) -> str:
    from score.deploy.plan import plan
    from score.deploy.scaling import render_autoscale, render_cluster
    from score.deploy.skus import lookup

    if not sku:
        raise AzureError(f"{options.kind}: of which size are the machines? --sku")
    write: Callable[..., str]
    write = render_cluster if options.kind == "cluster" else render_autoscale
    return write(plan(lookup(sku), *_one(options.model)), command=command, **choices)


def _model_yaml(
    options: argparse.Namespace, command: str, path: str = "", registered: str = "clip"
) -> str:
    from score.deploy.plan import plan
    from score.deploy.render import render_model
    from score.deploy.skus import skus

    if not path:
        raise AzureError("where is the model's folder, seen from the YAML? --path")
    name, architecture = _one(options.model)
    return render_model(
        _card(options.model, name, architecture.dimension),
        [plan(sku, name, architecture) for sku in skus().values() if sku.allowed],
        path=path,
        registered=registered,
        command=command,
    )


def _card(model: str | None, name: str, dimension: int) -> Card:
    from score.deploy.render import Card
    from score.jobs.catalog import CATALOG

    model = model or str(EMBEDDED.parent)
    entry = CATALOG.get(model)
    if entry:
        return Card(entry.title, dimension, entry.hub, entry.authors, entry.licence.name)
    file = Path(model) / "MLmodel"
    if not file.is_file():
        raise AzureError(f"{model} is no MLflow model: there is no {file}")
    import yaml  # of the extra `azure`

    said = yaml.safe_load(file.read_text(encoding="utf-8")).get("metadata") or {}
    source = str(said.get("source", ""))
    known = next((entry for entry in CATALOG.values() if entry.hub == source), None)
    return Card(
        str(said.get("base_model_name", name)),
        dimension,
        source,
        known.authors if known else "",
        str(said.get("license", "")),
    )


def _check(options: argparse.Namespace) -> int:
    from score.deploy.check import findings

    root = EMBEDDED.parent
    own = [root / "components", root / "environment", root / "samples" / "azure"]
    found = findings(options.folder, beside=own) if options.folder else findings(own)
    problems = found.problems
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in problems:
        print(problem)
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    print(count if problems else "all as it should be", file=sys.stderr)
    return 1 if problems else 0


def _simulate(options: argparse.Namespace) -> int:
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


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _one(model: str | None) -> tuple[str, Architecture]:
    if model == EVERY:
        raise AzureError("YAML is for one model: --model")
    (pair,) = _architectures(model).items()
    return pair


def _architectures(model: str | None) -> Mapping[str, Architecture]:
    """Name → architecture; of the embedded model where none is named.

    Raises AzureError for a name that is nothing.
    """
    from score.jobs.catalog import CATALOG

    if model is None:
        return {_EMBEDDED_NAME: ModelFolder.open(EMBEDDED).architecture}
    if model == EVERY:
        return {name: entry.made for name, entry in CATALOG.items()}
    if model in CATALOG:
        return {model: CATALOG[model].made}
    if os.path.isdir(model):
        return {Path(model).resolve().name: ModelFolder.open(model).architecture}
    raise AzureError(
        f"{model!r} is neither a folder nor in the catalog: {', '.join(CATALOG)}"
        + meant(model, CATALOG)
    )


def _count(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e15:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return value


def port(text: str) -> int:
    """A flag's value as a port. Raises ArgumentTypeError."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000")
    return int(text)
