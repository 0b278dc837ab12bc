"""What the twins share: a client, the model to deploy with its settings, clusters, taking down."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.ai.ml import MLClient, load_environment, load_model
from azure.ai.ml.entities import AmlCompute
from azure.ai.ml.exceptions import ValidationErrorType, ValidationException
from azure.core.exceptions import ResourceNotFoundError

from score.deploy.card import card
from score.deploy.cli.flags import whole
from score.deploy.plan import Plan, plan
from score.deploy.registered import Registered, registered
from score.deploy.render import render, render_model
from score.deploy.skus import lookup, skus
from score.deploy.target import Target, target
from score.errors import AzureError
from score.folder.architecture import Architecture
from score.folder.model_folder import ModelFolder

ROOT = Path(__file__).resolve().parent.parent.parent
MADE_BY = {"made_by": "clip-endpoints"}
"""The tag of whatever is made here; nothing else is taken down unasked."""

Agreed = Callable[[str], bool]

_REGISTRIES = "azureml://registries/"


@dataclass(frozen=True)
class Wanted:
    """What to deploy, and on what; the scripts' variables of the same names.

    device: cpu or gpu; by default what the size is. model: a package's folder, or azureml:…; by
    default the latest `clip`, or the embedded model where there is none. registry: a client of the
    registry that holds model and environment; `azureml:NAME:VERSION` is the workspace's all the
    same. secrets: settings and the addresses of their values.
    """

    device: str | None = None
    model: str | Path | None = None
    sku: str | None = None
    instances: int | None = None  # 1
    tier: str | None = None
    registry: MLClient | None = None
    environment: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """Size, kind and cluster. Raises AzureError for those that do not go together."""
        return target(self.device, self.sku, self.tier)


def endpoint_name(client: MLClient, stem: str) -> str:
    """One of a region's, which a number made of the workspace's tells from other people's.

    Raises AzureError where the workspace tells no id.
    """
    workspace = client.workspaces.get(client.workspace_name)
    if not workspace.id:
        raise AzureError(f"the workspace {client.workspace_name} has no id: name the endpoint")
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
    architecture = found.architecture or _downloaded(_holder(client, wanted, found), found)
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
            instances=wanted.instances or 1,
            secrets=wanted.secrets,
        )

    text(wanted.environment)
    name = wanted.target.kind if kind == "online" else f"{wanted.target.kind}-batch"
    file.write_text(text(wanted.environment or make_environment(client, name, wanted)))
    return made


def find_model(client: MLClient, kind: str, wanted: Wanted) -> Registered:
    """The model to deploy: registered now, or there already. Raises AzureError."""
    if str(wanted.model or "").startswith("azureml:"):
        return _named(client, wanted.registry, str(wanted.model))
    models = (wanted.registry or client).models
    if not wanted.model and (latest := latest_model(models)):
        return _told(latest)
    folder = Path(wanted.model or ROOT).resolve()
    architecture = ModelFolder.open(folder).architecture
    render(plan(lookup(wanted.target.size), folder.name, architecture), kind, command="")  # fits?
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.yml"
        plans = [plan(sku, folder.name, architecture) for sku in skus().values()]
        about = card(str(folder), folder.name, architecture)
        file.write_text(render_model(about, plans, path=str(folder), command="model"))
        return _told(models.create_or_update(load_model(file)))


def latest_model(models: Any) -> Any:
    """The latest `clip` of a workspace or registry, or None; the SDK has two errors for that."""
    try:
        return models.get("clip", label="latest")
    except ResourceNotFoundError:
        return None
    except ValidationException as error:
        if error.error_type != ValidationErrorType.RESOURCE_NOT_FOUND:
            raise
        return None


def _named(client: MLClient, registry: MLClient | None, reference: str) -> Registered:
    """A model of the workspace, or of the registry that its reference names. Raises AzureError."""
    where, name, found = _reference(reference)
    if not where:
        return _told(client.models.get(name, **found))
    needed = f"{reference} is of the registry {where}: name that registry (--registry {where})"
    if registry is None:
        raise AzureError(needed)
    told = _told(registry.models.get(name, **found))
    if not told.reference.startswith(f"{_REGISTRIES}{where}/"):
        raise AzureError(f"{needed}; the one given has {told.reference}")
    return told


def _reference(reference: str) -> tuple[str | None, str, dict[str, str]]:
    """Registry, name, and version or label of azureml:NAME:VERSION, azureml:NAME@LABEL or
    azureml://registries/REGISTRY/models/NAME/versions/VERSION. Raises AzureError for others."""
    word = r"[^/:@]+"
    of_registry = rf"{_REGISTRIES}(?P<registry>{word})/models/(?P<name>{word})/"
    of_registry += rf"(?:versions/(?P<version>{word})|labels/(?P<label>{word}))"
    of_workspace = rf"azureml:(?P<name>{word})(?::(?P<version>{word})|@(?P<label>{word}))"
    match = re.fullmatch(of_registry, reference) or re.fullmatch(of_workspace, reference)
    if not match:
        raise AzureError(
            f"{reference}: azureml:NAME:VERSION, azureml:NAME@LABEL, or "
            f"{_REGISTRIES}…/models/NAME/versions/VERSION"
        )
    found = {key: match[key] for key in ("version", "label") if match[key]}
    return match.groupdict().get("registry"), match["name"], found


def _holder(client: MLClient, wanted: Wanted, found: Registered) -> MLClient:
    """The client of the workspace or registry that has a model."""
    if wanted.registry and found.reference.startswith(_REGISTRIES):
        return wanted.registry
    return client


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


def make_cluster(client: MLClient, made: Target, most: int, tier: str | None = None) -> Any:
    """The cluster of a size, with 0 to `most` machines where there is none; as it is otherwise."""
    try:
        return client.compute.get(made.cluster)
    except ResourceNotFoundError:
        cluster = AmlCompute(
            name=made.cluster,
            size=made.size,
            min_instances=0,
            max_instances=most,
            tier=tier or "dedicated",
        )
        return client.compute.begin_create_or_update(cluster).result()


# -- taking it down ------------------------------------------------------------------------------

Release = Callable[[Any, list[str], list[str]], None]
"""Told the endpoint, what these samples made of its deployments, and the others: makes sure that no
requests or jobs go to the former."""


def clean(
    endpoints: Any, deployments: Any, name: str, everything: bool, agreed: Agreed, release: Release
) -> None:
    """Takes down what these samples made at an endpoint, and the endpoint where nothing else is on
    it; with `everything` all of it, after a question.

    `endpoints`, `deployments`: of a client, online or batch. Raises AzureError where the answer is
    no, and what `release` raises.
    """
    endpoint = endpoints.get(name)
    listed = list(deployments.list(name))
    ours = [one.name for one in listed if is_ours(one)]
    others = [one.name for one in listed if not is_ours(one)]
    if everything:
        must(agreed(f"Delete {name} with all on it ({' '.join(ours + others)})?"))
    if everything or (not others and is_ours(endpoint)):
        endpoints.begin_delete(name).result()
        return
    release(endpoint, ours, others)
    for one in ours:
        deployments.begin_delete(one, name).result()


def must(agreed: bool) -> None:
    """Raises AzureError where the answer was no."""
    if not agreed:
        raise AzureError("nothing was deleted")


# -- the command line ----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, stem: str) -> None:
    """What both twins are told; `stem`: of the endpoint's name."""
    for option in ("subscription", "group", "workspace"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--endpoint", help=f"default: {stem} and a number of the workspace's")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: what the size is; cpu")
    parser.add_argument("--model", help="a package's folder, or azureml:…; default: latest clip")
    parser.add_argument("--sku", help="a size of machine; default: a small one")
    parser.add_argument("--instances", type=whole, help="machines (1)")
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
