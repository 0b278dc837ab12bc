"""`score azure …`: plan, target, render, check, smoke, simulate."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score.deploy import flags, running, scripts
from score.errors import AzureError, meant
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.storage.outputs import check_files

if TYPE_CHECKING:  # the command line is wanted without these, too
    from score.deploy.render import Card
    from score.folder.architecture import Architecture

EVERY = "all"
_EMBEDDED_NAME = "the embedded model"
# What else `render` takes, and for what.
_CHOICES = {
    "sku": ("online", "batch", "cluster", "autoscale"),
    "code": ("online", "batch"),
    "name": ("online", "batch", "endpoint", "cluster"),
    "environment": ("online", "batch"),
    "cluster": ("batch",),
    "tier": ("batch", "cluster"),
    "instances": ("online", "batch", "cluster", "autoscale"),
    "most": ("autoscale",),
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
    plan.add_argument("--rows", type=flags.count, metavar="N", help="images of a job: 100e6")
    plan.add_argument("--instances", type=flags.whole, default=1, metavar="N", help="machines (1)")
    plan.add_argument(
        "--measured", type=float, metavar="RATE", help="images/s that such a machine does"
    )
    plan.add_argument("--sku", default=EVERY, metavar="SIZE", help="Standard_…, or all (default)")
    rendered = verbs.add_parser(
        "render",
        help="YAML of a model, an endpoint, a deployment that fits, a cluster; autoscale rules",
    )
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
    running.add(verbs.add_parser("simulate", help="run a deployment's YAML here, as Azure would"))


def _add_render(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("kind", choices=("online", "batch", "endpoint", "model", "cluster", "autoscale"))
    add("--output", type=Path, metavar="FILE", help="default: printed")
    add("--sku", metavar="SIZE", help="of the machines: Standard_…")
    add("--path", metavar="DIR", help="model: its folder, seen from the YAML")
    add("--code", metavar="DIR", help="the clone, seen from the YAML (.)")
    add("--name", metavar="NAME", help="its own: the deployment's (cpu or gpu), the endpoint's")
    add("--registered", metavar="NAME", help="the model: a name (clip) or azureml:…")
    add("--described", type=Path, metavar="FILE", help="what `az ml model show` says of it")
    add("--environment", metavar="REFERENCE", help="azureml:… (clip-cpu, …)")
    add("--cluster", metavar="NAME", help="batch: the compute's (that of the size)")
    add("--tier", choices=("dedicated", "low_priority"), help="of the cluster (dedicated)")
    machines = "machines (1); of a cluster at most (4), by autoscale rules at least (3)"
    add("--instances", type=flags.whole, metavar="N", help=machines)
    add(
        "--most",
        type=flags.whole,
        metavar="N",
        help="autoscale: machines at most (twice the least)",
    )
    where = "online: where Azure finds a setting: SCORE_…=https://VAULT…/secrets/NAME/VERSION"
    add("--secret", type=flags.pair, action="append", metavar="NAME=URL", help=where)
    add("--auth", choices=("key", "aml_token", "aad_token"), help="endpoint: of clients (key)")
    add("--identity", metavar="ID", help="endpoint: ARM id of a user-assigned identity")
    add("--private", action="store_true", help="endpoint: closed to the public network")
    add("--connections", action="store_true", help="endpoint: may read the workspace's secrets")
    add("--overwrite", action="store_true", help="replace a file that exists")


def run(options: argparse.Namespace) -> int:
    """Runs a verb, and returns the exit code: 0, or 1 for what does not fit, pass or finish."""
    verbs: dict[str, Callable[[argparse.Namespace], int]]
    verbs = {"plan": _plan, "render": _render, "check": _check, "simulate": running.run}
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
    named = {"model": options.model, **given} if options.model else given
    words = [word for name, value in named.items() for word in _option_words(name, value)]
    writers: dict[str, Callable[..., str]]
    writers = {"model": _model_yaml, "endpoint": _endpoint_yaml}
    writers |= {"online": _deployment_yaml, "batch": _deployment_yaml}
    writers |= {"cluster": _scaling, "autoscale": _scaling}
    text = writers[options.kind](options, " ".join([options.kind, *words]), **given)
    if options.output is None:
        print(text, end="")
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
        print(options.output, file=sys.stderr)
    return 0


def _option_words(name: str, value: object) -> list[str]:
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
        card(options.model, name, architecture),
        [plan(sku, name, architecture) for sku in skus().values() if sku.allowed],
        path=path,
        registered=registered,
        command=command,
    )


def card(model: str | None, name: str, architecture: Architecture) -> Card:
    """What is said of a model that is registered. Raises AzureError for what is no MLflow model."""
    from score.checkpoints.catalog import CATALOG
    from score.deploy.render import Card

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
    from score.deploy.check import findings

    root = EMBEDDED.parent
    own = [root / "components", root / "environment", root / "samples" / "azure"]
    if not options.folder and not own[0].is_dir():  # an installed wheel has none of these
        raise AzureError("there is no clone here whose files could be checked: name a folder")
    found = findings(options.folder, beside=own) if options.folder else findings(own)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in found.problems:
        print(problem)
    number, files = len(found.problems), found.files
    print(
        f"{number or 'no'} problem{'s' * (number != 1)} in {files} file{'s' * (files != 1)}",
        file=sys.stderr,
    )
    return 1 if number else 0


def _one(model: str | None) -> tuple[str, Architecture]:
    if model == EVERY:
        raise AzureError("YAML is for one model: --model")
    (pair,) = _architectures(model).items()
    return pair


def _architectures(model: str | None) -> Mapping[str, Architecture]:
    """Name → architecture; of the embedded model where none is named.

    Raises AzureError for a name that is nothing.
    """
    from score.checkpoints.catalog import CATALOG

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
