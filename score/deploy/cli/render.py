"""`score azure render`: YAML of models, endpoints, deployments and clusters; autoscale rules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score.console.commands import Parser
from score.deploy.cli import flags
from score.deploy.cli.models import add_model, one_architecture
from score.deploy.server_choice import azures_reason
from score.errors import AzureError
from score.storage import atomic
from score.storage.outputs import check_files

if TYPE_CHECKING:
    from score.folder.architecture import Architecture

HELP = "write YAML of a model, endpoint, deployment or cluster, or autoscale rules"

# Flag → the kinds that it has a meaning for.
_FLAGS = {
    "sku": ("online", "batch", "cluster", "autoscale"),
    "code": ("online", "batch"),
    "server": ("online",),
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

_WHY = {"server": ": only a real-time deployment (online) has a server"}


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add = parser.add_argument
    kinds = ("online", "batch", "endpoint", "model", "cluster", "autoscale")
    add("kind", choices=kinds, help="what the YAML (autoscale: JSON) is of")
    add("--output", type=Path, metavar="FILE", help="file to write; default: printed")
    add("--sku", metavar="SIZE", help="machine size: Standard_…")
    add("--path", metavar="DIR", help="model: its folder, relative to the YAML")
    code = "folder whose score/ it runs: a clone or a package, relative to the YAML (.)"
    add("--code", metavar="DIR", help=code)
    server = (
        "online: `score serve` answers, which shares forward passes among requests, in place of "
        "Azure's inference server (--no-server: Azure's); the default, unless --code or an "
        "--environment is for Azure's"
    )
    add("--server", action=argparse.BooleanOptionalAction, help=server)
    add("--name", metavar="NAME", help="of the deployment (cpu or gpu), endpoint or cluster")
    add("--registered", metavar="NAME", help="registered model: its name (clip) or azureml:…")
    add(
        "--described",
        type=Path,
        metavar="FILE",
        help="what `az ml model show` printed of the model",
    )
    add("--environment", metavar="REFERENCE", help="azureml:… of the environment (clip-cpu, …)")
    add("--cluster", metavar="NAME", help="batch: name of the compute (by its size)")
    add("--tier", choices=("dedicated", "low_priority"), help="tier of the cluster (dedicated)")
    machines = "machines (1); of a cluster at most (4), by autoscale rules at least (3)"
    add("--instances", type=flags.whole, metavar="N", help=machines)
    most = "autoscale: machines at most (twice the least)"
    add("--most", type=flags.whole, metavar="N", help=most)
    where = "online: where Azure finds a setting: SCORE_…=https://VAULT…/secrets/NAME/VERSION"
    add("--secret", type=flags.pair, action="append", metavar="NAME=URL", help=where)
    add(
        "--auth",
        choices=("key", "aml_token", "aad_token"),
        help="endpoint: how clients authenticate (key)",
    )
    add("--identity", metavar="ID", help="endpoint: ARM id of a user-assigned identity")
    add(
        "--private",
        action="store_true",
        default=None,
        help="endpoint: closed to the public network",
    )
    secrets = "endpoint: may read the workspace's secrets"
    add("--connections", action="store_true", default=None, help=secrets)
    add("--overwrite", action="store_true", help="replace a file that exists")
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the YAML, or writes it to a file."""
    given = {name: getattr(options, name) for name in _FLAGS}
    choices = {name: value for name, value in given.items() if value or value is False}
    for name in choices:
        if options.kind not in _FLAGS[name]:
            why = _WHY.get(name, "")
            raise AzureError(f"--{name} has no meaning for render {options.kind}{why}")
    if options.output:
        check_files([options.output], overwrite=options.overwrite)
    flags_set = {"model": options.model, **choices} if options.model else choices
    words = [word for name, value in flags_set.items() for word in _words(name, value)]
    writers: dict[str, Callable[..., str]]
    writers = {"model": _model, "endpoint": _endpoint}
    writers |= {"online": _deployment, "batch": _deployment}
    writers |= {"cluster": _scaling, "autoscale": _scaling}
    text = writers[options.kind](options, " ".join([options.kind, *words]), **choices)
    if options.output is None:
        print(text, end="")
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with atomic.file(options.output) as part:
            part.write_text(text, encoding="utf-8")
        print(options.output, file=sys.stderr)
    return 0


def _words(name: str, value: object) -> list[str]:
    """A flag and its value as they were written on the command line."""
    if isinstance(value, list):
        return [word for pair in value for word in (f"--{name}", "=".join(pair))]
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def _deployment(
    options: argparse.Namespace,
    command: str,
    sku: str = "",
    secret: Sequence[tuple[str, str]] = (),
    described: Path | None = None,
    server: bool | None = None,
    **choices: Any,
) -> str:
    from score.deploy.plan import instances_note, plan
    from score.deploy.render import render
    from score.deploy.skus import lookup

    if not sku:
        raise AzureError("a deployment is for one size: --sku")
    if options.kind == "online":
        choices["why"] = azures_reason(options.code, options.environment) if server is None else ""
        choices["server"] = not choices["why"] if server is None else server
        if choices["server"] and options.code:
            raise AzureError("--code has no meaning with --server: the model's folder has the code")
    if described is None:
        name, architecture = one_architecture(options.model)
    else:
        name, architecture, choices["registered"] = _described(described, options)
    fitted = plan(lookup(sku), name, architecture)
    text = render(fitted, options.kind, command=command, secrets=dict(secret), **choices)
    note = instances_note(options.instances or 1) if options.kind == "online" else None
    if note:
        print(f"note: {note}", file=sys.stderr)
    return text


def _described(file: Path, options: argparse.Namespace) -> tuple[str, Architecture, str]:
    """Title, architecture and reference of a registered model, which `az ml model show` printed.

    A model registered without its architecture needs `--model`, which names its files.
    """
    from score.deploy.registered import PROPERTY, read

    if options.registered:
        raise AzureError("--described says which model it is: leave out --registered")
    model = read(file)
    if options.model:
        return model.title, one_architecture(options.model)[1], model.reference
    if model.architecture is None:
        raise AzureError(
            f"{model.reference} does not say its architecture (the property {PROPERTY}), so its "
            "settings cannot be known: register it by `score azure render model`, or name a folder "
            "with its files: --model"
        )
    return model.title, model.architecture, model.reference


def _endpoint(options: argparse.Namespace, command: str, **choices: Any) -> str:
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
    return write(plan(lookup(sku), *one_architecture(options.model)), command=command, **choices)


def _model(
    options: argparse.Namespace, command: str, path: str = "", registered: str = "clip"
) -> str:
    from score.deploy.card import card
    from score.deploy.plan import plan
    from score.deploy.render import render_model
    from score.deploy.skus import skus

    if not path:
        raise AzureError("where is the model's folder, seen from the YAML? --path")
    name, architecture = one_architecture(options.model)
    return render_model(
        card(options.model, name, architecture),
        [plan(sku, name, architecture) for sku in skus().values() if sku.allowed],
        path=path,
        registered=registered,
        command=command,
    )
