"""What online.py and batch.py share: a client, and the model to deploy with its settings."""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.ai.ml import MLClient, load_environment, load_model
from azure.core.exceptions import ResourceNotFoundError

from score.architecture import Architecture
from score.deploy.cli import card
from score.deploy.plan import Plan, plan
from score.deploy.registered import Registered, registered
from score.deploy.render import render, render_model
from score.deploy.skus import lookup, skus
from score.deploy.target import Target, target
from score.errors import AzureError
from score.folder import ModelFolder

ROOT = Path(__file__).resolve().parent.parent.parent
MADE_BY = {"made_by": "clip-endpoints"}
"""The tag of whatever is made here; nothing else is taken down unasked."""

Agreed = Callable[[str], bool]


@dataclass(frozen=True)
class Wanted:
    """What to deploy, and on what; the scripts' variables of the same names.

    device: cpu or gpu; by default what the size is. model: a package's folder, or azureml:…; by
    default the latest `clip`, or the embedded model where there is none. registry: a client of the
    registry that holds model and environment. secrets: settings and the addresses of their values.
    """

    device: str | None = None
    model: str | Path | None = None
    sku: str | None = None
    instances: int = 1
    tier: str | None = None
    registry: MLClient | None = None
    environment: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """Size, kind and cluster. Raises AzureError for those that do not go together."""
        return target(self.device, self.sku, self.tier)


def endpoint_name(client: MLClient, stem: str) -> str:
    """One of a region's, which a number made of the workspace's tells from other people's."""
    workspace = client.workspaces.get(client.workspace_name)
    return f"{stem}-{zlib.crc32(str(workspace.id).encode())}"


def is_ours(thing: Any) -> bool:
    """Whether these samples made an endpoint or a deployment."""
    return MADE_BY.items() <= (thing.tags or {}).items()


def asked(question: str) -> bool:
    """Whether the user says yes; where nobody can be asked, no."""
    if not sys.stdin or not sys.stdin.isatty():
        print(f"{question} Nobody is here to ask: --yes says yes.", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower().startswith("y")


# -- the model, and the settings that it needs ---------------------------------------------------


def write_deployment(client: MLClient, kind: str, wanted: Wanted, file: Path) -> Plan:
    """Writes the YAML of a deployment (online, batch) with the settings of the model that is
    deployed, registers model and environment where needed, and returns the plan.

    Raises AzureError where the model does not fit, before anything is made.
    """
    size = lookup(wanted.target.size)
    found = find_model(client, kind, wanted)
    architecture = found.architecture or _downloaded(wanted.registry or client, found)
    made = plan(size, found.title, architecture)

    def text(environment: str | None) -> str:
        return render(
            made,
            kind,
            command=f"{kind} --sku {size.name}",
            code=str(ROOT),
            registered=found.reference,
            environment=environment,
            cluster=wanted.target.cluster,
            instances=wanted.instances,
            secrets=wanted.secrets,
        )

    text(wanted.environment)
    name = wanted.target.kind if kind == "online" else f"{wanted.target.kind}-batch"
    file.write_text(text(wanted.environment or make_environment(client, name, wanted)))
    return made


def find_model(client: MLClient, kind: str, wanted: Wanted) -> Registered:
    """The model to deploy: registered now, or there already. Raises AzureError."""
    models = (wanted.registry or client).models
    if str(wanted.model or "").startswith("azureml:"):
        name, found = _reference(str(wanted.model))
        return _told(models.get(name, **found))
    try:
        if not wanted.model:
            return _told(models.get("clip", label="latest"))
    except ResourceNotFoundError:
        pass
    folder = Path(wanted.model or ROOT).resolve()
    architecture = ModelFolder.open(folder).architecture
    render(plan(lookup(wanted.target.size), folder.name, architecture), kind, command="")  # fits?
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.yml"
        plans = [plan(sku, folder.name, architecture) for sku in skus().values()]
        about = card(str(folder), folder.name, architecture)
        file.write_text(render_model(about, plans, path=str(folder), command="model"))
        return _told(models.create_or_update(load_model(file)))


def _reference(reference: str) -> tuple[str, dict[str, str]]:
    """azureml:NAME:VERSION, azureml:NAME@LABEL, azureml://registries/…/models/NAME/versions/VERSION."""
    if reference.startswith("azureml://"):
        name, family, value = reference.split("/")[-3:]
        return name, {family.removesuffix("s"): value}
    name, at, label = reference.removeprefix("azureml:").partition("@")
    if at:
        return name, {"label": label}
    name, _, version = name.partition(":")
    return name, {"version": version}


def _told(model: Any) -> Registered:
    names = ("name", "version", "id", "properties")
    return registered({name: getattr(model, name, None) for name in names})


def _downloaded(client: MLClient, found: Registered) -> Architecture:
    """Of a model that does not say what it is, from its files. Raises AzureError."""
    with tempfile.TemporaryDirectory() as scratch:
        client.models.download(found.name, found.version, download_path=scratch)
        for file in Path(scratch).rglob("MLmodel"):
            return ModelFolder.open(file.parent).architecture
    raise AzureError(f"{found.title} holds no MLmodel: what settings it needs cannot be known")


def make_environment(client: MLClient, name: str, wanted: Wanted) -> str:
    """A version of clip-NAME, as a reference."""
    environments = (wanted.registry or client).environments
    made = environments.create_or_update(load_environment(ROOT / f"environment/{name}.yml"))
    if wanted.registry:
        return str(made.id)
    return f"azureml:{made.name}:{made.version}"


# -- the command line ----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, stem: str) -> None:
    """What both twins are told; `stem`: of the endpoint's name."""
    for option in ("subscription", "group", "workspace"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--endpoint", help=f"default: {stem} and a number of the workspace's")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: what the size is; cpu")
    parser.add_argument("--model", help="a package's folder, or azureml:…; default: latest clip")
    parser.add_argument("--sku", help="a size of machine; default: a small one")
    parser.add_argument("--instances", type=int, default=1, help="machines (1)")
    parser.add_argument("--registry", help="its name: for model and environment")
    parser.add_argument("--environment", help="azureml:…, one that is there already")
    what = "take down what was made; all: everything on the endpoint"
    parser.add_argument("--clean", nargs="?", const="ours", choices=("ours", "all"), help=what)
    parser.add_argument("--yes", action="store_true", help="answers questions")


def connected(options: argparse.Namespace) -> tuple[MLClient, MLClient | None]:
    """Clients of the workspace and, where one is named, of the registry."""
    from azure.identity import DefaultAzureCredential  # of azure-identity

    credential = DefaultAzureCredential()
    client = MLClient(credential, options.subscription, options.group, options.workspace)
    name = options.registry
    return client, MLClient(credential, registry_name=name) if name else None


def agreed_by(options: argparse.Namespace) -> Agreed:
    """How questions are answered: --yes says yes."""
    return (lambda question: True) if options.yes else asked
