"""Environments: base images, packages, what their use requires, and CPU or GPU.

Sources: learn.microsoft.com/azure/machine-learning/how-to-inference-server-http (a scoring script
is run by azureml-inference-server-http) and how-to-use-batch-model-deployments ("azureml-core and
azureml-dataset-runtime[fuse] are required by batch deployments").
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from score.deploy.rules import images, packages
from score.deploy.rules.documents import BATCH_DEPLOYMENT, DEPLOYMENT, Document, Known
from score.deploy.rules.environment_definition import EnvironmentDefinition
from score.deploy.rules.notes import Note
from score.deploy.rules.parts import environments, parts, variables
from score.deploy.rules.references import local, referred, served
from score.deploy.rules.sizes import has_gpus
from score.deploy.values import at, whole
from score.errors import AzureError
from score.type_aliases import Json

_CONDA = {"name", "channels", "dependencies", "variables", "prefix"}
_SERVERS = {"azureml-inference-server-http", "azureml-defaults"}
_BATCH_RUNNERS = {"azureml-core", "azureml-defaults", "azureml-dataset-runtime", "azureml-sdk"}
_ROUTES = ("liveness_route", "readiness_route", "scoring_route")


def problems(document: Document, known: Known) -> Iterator[str]:
    """What is wrong with the environments that a document defines or refers to."""
    for where, environment in environments(document):
        definition = EnvironmentDefinition(environment, document.here)
        if "image" in environment:
            yield from images.problems(f"{where}image", environment["image"])
        elif "build" not in environment and "conda_file" in environment:
            yield f"{where}image: is missing, and conda_file needs it"
        yield from _conda(f"{where}conda_file", definition)
        yield from _build(f"{where}build.path", definition)
        yield from _routes(f"{where}inference_config", environment)
    yield from _kinds(document, known)
    yield from _machines(document, known)


def _conda(where: str, definition: EnvironmentDefinition) -> Iterator[str]:
    conda, content = definition.environment.get("conda_file"), definition.conda()
    if content is None:
        return
    folder = definition.here
    if isinstance(conda, str):
        where, folder = f"{where}: {conda}", (definition.here / conda).parent
    if not isinstance(content, dict):
        yield f"{where}: {content if isinstance(content, str) else 'no mapping'}"
        return
    yield from (f"{where}: {key}: unknown field" for key in content if key not in _CONDA)
    own, pip = packages.conda(content)
    yield from packages.of_conda(where, own)
    yield from packages.problems(where, pip)
    for name, file in packages.included(pip, folder):
        if not os.path.isfile(file):
            yield f"{where}: there is no {name}"


def _build(where: str, definition: EnvironmentDefinition) -> Iterator[str]:
    file = definition.dockerfile
    if file is None:
        return
    for image in definition.images():
        yield from images.problems(f"{where}: {file.name}: FROM", image)
    for source in definition.copied():
        if not os.path.exists(definition.folder / source):
            yield f"{where}: {file.name}: COPY {source}: there is no such file"
    for name, lines in definition.requirements():
        yield from packages.problems(f"{where}: {name}", lines)


def _routes(where: str, environment: Json) -> Iterator[str]:
    for route in _ROUTES:
        port = at(environment, f"inference_config.{route}.port")
        path = at(environment, f"inference_config.{route}.path")
        if port is not None:
            try:
                whole(f"{where}.{route}.port", port, 1, 65_535)
            except AzureError as error:
                yield str(error)
        if path is not None and not str(path).startswith("/"):
            yield f"{where}.{route}.path: {path!r} does not begin with a slash"


# -- what uses it ----------------------------------------------------------------------------------


def used(document: Document, part: Json, known: Known) -> EnvironmentDefinition | None:
    """The environment of a part of a document, inline or in another file; None for others."""
    environment = part.get("environment")
    if isinstance(environment, dict):
        return EnvironmentDefinition(environment, document.here)
    other = referred(environment, "environment", known)
    return EnvironmentDefinition(other.content, other.here) if other else None


def _kinds(document: Document, known: Known) -> Iterator[str]:
    """Whether an environment installs the package of Azure's that runs the script."""
    for where, part in parts(document):
        environment = used(document, part, known)
        if not environment:
            continue
        runners, description = _runners(document, part, environment)
        installed = environment.packages() if runners else None
        if installed is not None and installed.isdisjoint(runners):
            yield f"{where}environment: it is of the wrong kind: it does not install {description}"


def _runners(
    document: Document, part: Json, definition: EnvironmentDefinition
) -> tuple[set[str], str]:
    """The packages, any of which can run the part's script, and a description of them."""
    scripted = "code_configuration" in part
    if (
        document.family == DEPLOYMENT
        and scripted
        and "inference_config" not in definition.environment
    ):
        # `az ml online-deployment create --package-model` adds it; the file does not show that.
        description = (
            "azureml-inference-server-http, which runs the script (--package-model adds it)"
        )
        return _SERVERS, description
    if (document.family == BATCH_DEPLOYMENT and scripted) or "entry_script" in part:
        return _BATCH_RUNNERS, "azureml-core, which runs the script"
    return set(), ""


def _size(document: Document, known: Known) -> str | None:
    """The size of the machines that a deployment runs on; None where the files do not show it."""
    size = document.content.get("instance_type")
    if document.kind == "managedOnlineDeployment" and isinstance(size, str):
        return size
    compute = str(document.content.get("compute")).removeprefix("azureml:")
    cluster = known.find("compute", compute) if document.family == BATCH_DEPLOYMENT else None
    return str(cluster.content["size"]) if cluster and "size" in cluster.content else None


def _of_model(document: Document, known: Known) -> EnvironmentDefinition | None:
    """The MLflow model's own environment, which Azure installs where a deployment names none."""
    model, here = served(document, known)
    path = model.get("path")
    if "environment" in document.content or not isinstance(path, str) or not local(path):
        return None
    return EnvironmentDefinition({"conda_file": f"{path}/conda.yaml"}, here)


def _machines(document: Document, known: Known) -> Iterator[str]:
    """Whether machine size, environment and SCORE_DEVICE agree on CPU or GPU."""
    if document.family not in (DEPLOYMENT, BATCH_DEPLOYMENT):
        return
    field = "instance_type" if "instance_type" in document.content else "compute"
    size, environment = _size(document, known), used(document, document.content, known)
    environment = environment or _of_model(document, known)
    built = environment.device() if environment else None
    gpus = has_gpus(size) if size else None
    devices = {str(one.get("SCORE_DEVICE")).lower() for _, one in variables(document)} - {"none"}
    if gpus and built == "cpu":
        yield f"{field}: {size} has GPUs, and the environment's PyTorch is built for CPUs alone"
    if gpus and "cpu" in devices:
        yield f"{field}: {size} has GPUs, and SCORE_DEVICE: cpu uses none of them"
    if gpus is False and "cuda" in devices:
        yield f"{field}: {size} has no GPU, and SCORE_DEVICE is cuda"
    elif built == "cpu" and "cuda" in devices:
        yield "environment: its PyTorch is built for CPUs alone, and SCORE_DEVICE is cuda"
    elif gpus is False and built == "cuda":
        yield Note(f"{field}: {size} has no GPU, and the environment is built for CUDA")
