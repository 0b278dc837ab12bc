"""`score azure …`: plan, target, render, check, smoke, simulate."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score.deploy import scripts
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
    "sku": ("online", "batch"),
    "code": ("online", "batch"),
    "name": ("online", "batch", "endpoint"),
    "environment": ("online", "batch"),
    "cluster": ("batch",),
    "tier": ("batch",),
    "instances": ("online", "batch"),
    "secret": ("online",),
    "path": ("model",),
    "registered": ("online", "batch", "model"),
    "described": ("online", "batch"),
    "auth": ("endpoint",),
    "identity": ("endpoint",),
    "private": ("endpoint",),
    "connections": ("endpoint",),
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
    rendered = verbs.add_parser("render", help="the YAML of a model, endpoint or deployment")
    _add_render(rendered)
    scripts.add(verbs)
    for verb in (plan, rendered):
        verb.add_argument(
            "--model",
            metavar="NAME|DIR",
            help="of the catalog, or a folder; or all; default: the embedded one",
        )
    checked = verbs.add_parser("check", help="whether YAML is what Azure's own SDK would take")
    checked.add_argument("folder", type=Path, nargs="*", help="default: all that is in the clone")
    _add_simulate(verbs.add_parser("simulate", help="run a deployment's YAML here, as Azure would"))


def _add_render(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("kind", choices=("online", "batch", "endpoint", "model"))
    add("--output", type=Path, metavar="FILE", help="default: printed")
    add("--sku", metavar="SIZE", help="a deployment's: Standard_…")
    add("--path", metavar="DIR", help="model: its folder, seen from the YAML")
    add("--code", metavar="DIR", help="the clone, seen from the YAML (.)")
    add("--name", metavar="NAME", help="its own: the deployment's (cpu or gpu), the endpoint's")
    add("--registered", metavar="NAME", help="the model: a name (clip) or azureml:…")
    add("--described", type=Path, metavar="FILE", help="what `az ml model show` says of it")
    add("--environment", metavar="REFERENCE", help="azureml:… (clip-cpu, …)")
    add("--cluster", metavar="NAME", help="batch: the compute's (that of the size)")
    add("--tier", metavar="TIER", help="batch, of the cluster: dedicated or low_priority")
    add("--instances", type=_whole, metavar="N", help="machines (1)")
    where = "online: where Azure finds a setting: SCORE_…=https://VAULT…/secrets/NAME/VERSION"
    add("--secret", type=_pair, action="append", metavar="NAME=URL", help=where)
    add("--auth", choices=("key", "aml_token", "aad_token"), help="endpoint: of clients (key)")
    add("--identity", metavar="ID", help="endpoint: ARM id of a user-assigned identity")
    add("--private", action="store_true", help="endpoint: closed to the public network")
    add("--connections", action="store_true", help="endpoint: may read the workspace's secrets")
    add("--overwrite", action="store_true", help="replace a file that exists")


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
    verbs: dict[str, Callable[[argparse.Namespace], int]]
    verbs = {"plan": _plan, "render": _render, "check": _check, "simulate": _simulate}
    verbs |= {
        "target": scripts.target,
        "registered": scripts.registered,
        "smoke": scripts.smoke,
    }
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
    words = [word for name, value in told.items() for word in _said(name, value)]
    writers: dict[str, Callable[..., str]]
    writers = {"model": _model_yaml, "endpoint": _endpoint_yaml}
    writers |= {"online": _deployment_yaml, "batch": _deployment_yaml}
    text = writers[options.kind](options, " ".join([options.kind, *words]), **given)
    if options.output is None:
        print(text, end="")
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
        print(options.output, file=sys.stderr)
    return 0


def _said(name: str, value: object) -> list[str]:
    """An option as it was written on the command line."""
    if isinstance(value, list):
        return [word for pair in value for word in (f"--{name}", "=".join(pair))]
    return [f"--{name}"] if value is True else [f"--{name}", str(value)]


def _deployment_yaml(
    options: argparse.Namespace,
    command: str,
    sku: str = "",
    secret: Sequence[tuple[str, str]] = (),
    described: Path | None = None,
    **choices: Any,
) -> str:
    from score.deploy.plan import plan
    from score.deploy.render import render
    from score.deploy.skus import lookup

    if not sku:
        raise AzureError("a deployment is for one size: --sku")
    if described is None:
        name, architecture = _one(options.model)
    else:
        name, architecture, choices["registered"] = _described(described, options)
    made = plan(lookup(sku), name, architecture)
    return render(made, options.kind, command=command, secrets=dict(secret), **choices)


def _described(file: Path, options: argparse.Namespace) -> tuple[str, Architecture, str]:
    """Title, architecture and reference of a registered model; `--model` names its files, for one
    that does not say its architecture."""
    from score.deploy.registered import PROPERTY, read

    if options.registered:
        raise AzureError("--described says which model it is: leave out --registered")
    found = read(file)
    if options.model:
        return found.title, _one(options.model)[1], found.reference
    if found.architecture is None:
        raise AzureError(
            f"{found.reference} does not say its architecture (the property {PROPERTY}), so its "
            "settings cannot be known: register it by `score azure render model`, or name a folder "
            "with its files: --model"
        )
    return found.title, found.architecture, found.reference


def _endpoint_yaml(options: argparse.Namespace, command: str, **choices: Any) -> str:
    from score.deploy.render import render_endpoint

    return render_endpoint(command=command, **choices)


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
        card(options.model, name, architecture),
        [plan(sku, name, architecture) for sku in skus().values()],
        path=path,
        registered=registered,
        command=command,
    )


def card(model: str | None, name: str, architecture: Architecture) -> Card:
    """What is said of a model that is registered. Raises AzureError for what is no MLflow model."""
    from score.deploy.render import Card
    from score.jobs.catalog import CATALOG

    model = model or str(EMBEDDED.parent)
    entry = CATALOG.get(model)
    if entry:
        return Card(entry.title, architecture, entry.hub, entry.authors, entry.licence.name)
    file = Path(model) / "MLmodel"
    if not file.is_file():
        raise AzureError(f"{model} is no MLflow model: there is no {file}")
    import yaml  # of the extra `azure`

    said = yaml.safe_load(file.read_text(encoding="utf-8")).get("metadata") or {}
    source = str(said.get("source", ""))
    known = next((entry for entry in CATALOG.values() if entry.hub == source), None)
    return Card(
        str(said.get("base_model_name", name)),
        architecture,
        source,
        known.authors if known else "",
        str(said.get("license", "")),
    )


def _check(options: argparse.Namespace) -> int:
    from score.deploy.check import check

    root = EMBEDDED.parent
    own = [root / "components", root / "environment", root / "samples" / "azure"]
    problems = check(options.folder, beside=own) if options.folder else check(own)
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

    for file in options.request:  # before anything is started
        if not file.is_file():
            raise AzureError(f"there is no request file {file}")
    with harness.online(
        options.yaml, model=options.model, port=options.port, machine=machine
    ) as process:
        address = f"http://127.0.0.1:{options.port}"
        if not harness.ready(address, process):
            print("score: the server did not start: its log, above, says why", file=sys.stderr)
            return 1
        print(f"{address}/score answers", file=sys.stderr)
        if not options.request:
            try:
                return process.wait()
            except KeyboardInterrupt:
                return 0
        answers = [harness.ask(f"{address}/score", file) for file in options.request]
    for file, (status, answer) in zip(options.request, answers, strict=True):
        print(f"{file}: {status} {answer}")
    return 0 if all(status == 200 for status, _ in answers) else 1


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
