"""What the Python samples share: clients, the model and its settings, clusters, and deletion."""

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
"""The tag of what these samples create; they delete nothing else without a question."""

Agreed = Callable[[str], bool]

_REGISTRIES = "azureml://registries/"


@dataclass(frozen=True)
class Wanted:
    """What to deploy, and on which machines; the scripts have variables of the same names.

    device: cpu or gpu; by default that of the size. model: a package's folder, or azureml:…; by
    default the latest `clip`, or the embedded model if there is none. registry: a client of the
    registry that holds model and environment; `azureml:NAME:VERSION` is in the workspace even then.
    secrets: setting → the address of its value.
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
        """Size, kind and cluster. Raises AzureError where they do not fit each other."""
        return target(self.device, self.sku, self.tier)


def endpoint_name(client: MLClient, stem: str) -> str:
    """A name that is unique in the region: the stem, and a number made from the workspace's id.

    Raises AzureError where the workspace has no id.
    """
    workspace = client.workspaces.get(client.workspace_name)
    if not workspace.id:
        raise AzureError(f"the workspace {client.workspace_name} has no id: name the endpoint")
    return f"{stem}-{zlib.crc32(str(workspace.id).encode())}"


def is_ours(thing: Any) -> bool:
    """Whether an endpoint or a deployment has the tag of these samples."""
    return MADE_BY.items() <= (thing.tags or {}).items()


def asked(question: str) -> bool:
    """Whether the user answers yes; False without a terminal."""
    if not sys.stdin or not sys.stdin.isatty():
        print(f"{question} Nobody is here to ask: --yes says yes.", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower().startswith("y")


# -- the model, and the settings that it needs ---------------------------------------------------


def write_deployment(client: MLClient, kind: str, wanted: Wanted, file: Path) -> Plan:
    """Writes the YAML of a deployment (online or batch), registers model and environment if needed,
    and returns the plan.

    Raises AzureError for a model that does not fit, before anything is registered.
    """
    size = lookup(wanted.target.size)
    model = find_model(client, kind, wanted)
    architecture = model.architecture or _downloaded(_holder(client, wanted, model), model)
    fitted = plan(size, model.title, architecture)

    def text(environment: str | None) -> str:
        return render(
            fitted,
            kind,
            command=f"{kind} --sku {size.name}",
            code=str(ROOT),
            registered=model.reference,
            environment=environment,
            cluster=wanted.target.cluster,
            instances=wanted.instances or 1,
            secrets=wanted.secrets,
        )

    text(wanted.environment)
    name = wanted.target.kind if kind == "online" else f"{wanted.target.kind}-batch"
    file.write_text(text(wanted.environment or make_environment(client, name, wanted)))
    return fitted


def find_model(client: MLClient, kind: str, wanted: Wanted) -> Registered:
    """The model to deploy: an existing one, or one that is registered now. Raises AzureError."""
    if str(wanted.model or "").startswith("azureml:"):
        return _named(client, wanted.registry, str(wanted.model))
    models = (wanted.registry or client).models
    if not wanted.model and (latest := latest_model(models)):
        return _registered(latest)
    folder = Path(wanted.model or ROOT).resolve()
    architecture = ModelFolder.open(folder).architecture
    render(plan(lookup(wanted.target.size), folder.name, architecture), kind, command="")  # fits?
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.yml"
        plans = [plan(sku, folder.name, architecture) for sku in skus().values()]
        about = card(str(folder), folder.name, architecture)
        file.write_text(render_model(about, plans, path=str(folder), command="model"))
        return _registered(models.create_or_update(load_model(file)))


def latest_model(models: Any) -> Any:
    """The latest `clip` of a workspace or registry, or None, for which the SDK has two errors."""
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
    where, name, version = _reference(reference)
    if not where:
        return _registered(client.models.get(name, **version))
    needed = f"{reference} is of the registry {where}: name that registry (--registry {where})"
    if registry is None:
        raise AzureError(needed)
    model = _registered(registry.models.get(name, **version))
    if not model.reference.startswith(f"{_REGISTRIES}{where}/"):
        raise AzureError(f"{needed}; the one given has {model.reference}")
    return model


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
    version = {key: match[key] for key in ("version", "label") if match[key]}
    return match.groupdict().get("registry"), match["name"], version


def _holder(client: MLClient, wanted: Wanted, model: Registered) -> MLClient:
    """The client of the workspace or registry that has a model."""
    if wanted.registry and model.reference.startswith(_REGISTRIES):
        return wanted.registry
    return client


def _registered(model: Any) -> Registered:
    names = ("name", "version", "id", "properties")
    return registered({name: getattr(model, name, None) for name in names})


def _downloaded(client: MLClient, model: Registered) -> Architecture:
    """The architecture of a model registered without it, from its files. Raises AzureError."""
    with tempfile.TemporaryDirectory() as scratch:
        client.models.download(model.name, model.version, download_path=scratch)
        for file in Path(scratch).rglob("MLmodel"):
            return ModelFolder.open(file.parent).architecture
    raise AzureError(f"{model.title} holds no MLmodel: what settings it needs cannot be known")


def make_environment(client: MLClient, name: str, wanted: Wanted) -> str:
    """Registers a version of clip-NAME. Returns a reference to it."""
    environments = (wanted.registry or client).environments
    environment = environments.create_or_update(load_environment(ROOT / f"environment/{name}.yml"))
    if wanted.registry:
        return str(environment.id)
    return f"azureml:{environment.name}:{environment.version}"


def make_cluster(client: MLClient, machines: Target, most: int, tier: str | None = None) -> Any:
    """The cluster of a size; created with 0 to `most` machines if there is none."""
    try:
        return client.compute.get(machines.cluster)
    except ResourceNotFoundError:
        cluster = AmlCompute(
            name=machines.cluster,
            size=machines.size,
            min_instances=0,
            max_instances=most,
            tier=tier or "dedicated",
        )
        return client.compute.begin_create_or_update(cluster).result()


# -- deletion -----------------------------------------------------------------------------------

Release = Callable[[Any, list[str], list[str]], None]
"""Takes the endpoint, the names of its deployments that these samples created, and those of others.
Moves requests or jobs away from the former."""


def clean(
    endpoints: Any, deployments: Any, name: str, everything: bool, agreed: Agreed, release: Release
) -> None:
    """Deletes what these samples created at an endpoint, and the endpoint if nothing else is on it;
    with `everything` all of it, after a question.

    `endpoints`, `deployments`: operations of a client, online or batch. Raises AzureError where the
    answer is no, and what `release` raises.
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
    """Raises AzureError for the answer no."""
    if not agreed:
        raise AzureError("nothing was deleted")


# -- the command line ----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, stem: str) -> None:
    """The options that both samples have. `stem`: the start of the endpoint's default name."""
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
    """Who answers questions: --yes, or the user."""
    return (lambda question: True) if options.yes else asked
