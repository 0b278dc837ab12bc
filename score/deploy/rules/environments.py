"""Environments: what they are built from, what they can serve, and on which machines.

Sources: learn.microsoft.com/azure/machine-learning/how-to-inference-server-http (a scoring script is
run by azureml-inference-server-http) and how-to-use-batch-model-deployments ("azureml-core and
azureml-dataset-runtime[fuse] are required by batch deployments").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml

from score.deploy.rules import images, packages
from score.deploy.rules.documents import BATCH_DEPLOYMENT, DEPLOYMENT, Document, Known
from score.deploy.rules.notes import Note
from score.deploy.rules.parts import environments, parts, variables
from score.deploy.rules.references import local, referred
from score.deploy.rules.sizes import has_gpus
from score.deploy.values import Json, at, whole
from score.errors import AzureError

_CONDA = {"name", "channels", "dependencies", "variables", "prefix"}
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?", re.MULTILINE | re.IGNORECASE)
_COPY = re.compile(r"^(?:COPY|ADD) +(?!--)(?!https?:)([^\s\[$*]+) +\S+$", re.MULTILINE)
_INSTALL = re.compile(r"pip3? install ([^&|;\n]*)")
_COMMENTS = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
_CPU_TORCH = re.compile(r"whl/cpu\b|\+cpu\b")
_CUDA_TORCH = re.compile(r"whl/cu\d+|\+cu\d+|cuda|NVIDIA_VISIBLE_DEVICES")
_SERVERS = {"azureml-inference-server-http", "azureml-defaults"}
_BATCH_RUNNERS = {"azureml-core", "azureml-defaults", "azureml-dataset-runtime", "azureml-sdk"}
_ROUTES = ("liveness_route", "readiness_route", "scoring_route")


def problems(document: Document, known: Known) -> Iterator[str]:
    """What is wrong with the environments that a document defines, or refers to."""
    for where, environment in environments(document):
        yield from _one(where, environment, document.here)
    yield from _kinds(document, known)
    yield from _machines(document, known)


def _one(where: str, environment: Json, here: Path) -> Iterator[str]:
    if "image" in environment:
        yield from images.problems(f"{where}image", environment["image"])
    elif "build" not in environment and "conda_file" in environment:
        yield f"{where}image: is missing, and conda_file needs it"
    if "conda_file" in environment:
        yield from _conda(f"{where}conda_file", environment["conda_file"], here)
    yield from _build(where, environment, here)
    for route in _ROUTES:
        port = at(environment, f"inference_config.{route}.port")
        path = at(environment, f"inference_config.{route}.path")
        if port is not None:
            try:
                whole(f"{where}inference_config.{route}.port", port, 1, 65_535)
            except AzureError as error:
                yield str(error)
        if path is not None and not str(path).startswith("/"):
            yield f"{where}inference_config.{route}.path: {path!r} does not begin with a slash"


# -- what it is made of ----------------------------------------------------------------------------


def _conda(where: str, given: object, here: Path) -> Iterator[str]:
    content, folder = _conda_content(given, here)
    if content is None:
        return
    said = f"{where}: {given}" if isinstance(given, str) else where
    if not isinstance(content, dict):
        yield f"{said}: no mapping"
        return
    yield from (f"{said}: {key}: unknown field" for key in content if key not in _CONDA)
    own, pip = packages.conda(content)
    yield from packages.of_conda(said, own)
    yield from packages.problems(said, pip)
    for name, file in packages.included(pip, folder):
        if not file.is_file():
            yield f"{said}: there is no {name}"


def _conda_content(given: object, here: Path) -> tuple[object, Path]:
    """What a conda file says, and the folder from which its paths are seen; None if it is away."""
    if not isinstance(given, str):
        return given, here
    file = here / given
    if not local(given) or not file.is_file():
        return None, here
    try:
        return yaml.safe_load(file.read_bytes()), file.parent
    except Exception as error:  # as in documents: PyYAML's constructors raise anything
        return f"no YAML: {error}", file.parent


def _build(where: str, environment: Json, here: Path) -> Iterator[str]:
    file = _dockerfile(environment, here)
    if file is None:
        return
    text = _COMMENTS.sub("", _text(file))
    stages = {stage.lower() for _, stage in _FROM.findall(text) if stage} | {"scratch"}
    for image, _ in _FROM.findall(text):
        if image.lower() not in stages:
            yield from images.problems(f"{where}build.path: {file.name}: FROM", image)
    for source in _COPY.findall(text):
        if not (_context(environment, here) / source).exists():
            yield f"{where}build.path: {file.name}: COPY {source}: there is no such file"
    for name, lines in _requirements(environment, here):
        yield from packages.problems(f"{where}build.path: {name}", lines)


def _context(environment: Json, here: Path) -> Path:
    return here / str(at(environment, "build.path"))


def _dockerfile(environment: Json, here: Path) -> Path | None:
    path = at(environment, "build.path")
    if not isinstance(path, str) or not local(path):
        return None
    file = here / path / str(at(environment, "build.dockerfile_path") or "Dockerfile")
    return file if file.is_file() else None


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _requirements(environment: Json, here: Path) -> Iterator[tuple[str, list[str]]]:
    """The files of requirements, and of conda, that a Dockerfile copies: what each asks of pip."""
    file = _dockerfile(environment, here)
    for source in _COPY.findall(_text(file)) if file else ():
        copied = _context(environment, here) / source
        if not copied.is_file():
            continue
        if copied.suffix == ".txt":
            yield copied.name, _text(copied).splitlines()
        elif copied.suffix in (".yml", ".yaml"):
            content, _ = _conda_content(source, _context(environment, here))
            yield copied.name, list(packages.conda(content)[1])


def _packages(environment: Json, here: Path) -> set[str] | None:
    """The packages that an environment installs; None where not all of them show."""
    if "conda_file" in environment:
        content, _ = _conda_content(environment["conda_file"], here)
        own, pip = packages.conda(content)
        if content is None or any(packages.included(pip, here)):
            return None
        return packages.names([*own, *pip])
    file = _dockerfile(environment, here)
    if file is None:
        return None
    found = set()
    for _, lines in _requirements(environment, here):
        found |= packages.names(lines)
    for words in _INSTALL.findall(_text(file)):
        found |= packages.names(words.split())
    base = _FROM.search(_text(file))
    return None if base and "azureml" in base[1] and found.isdisjoint(_SERVERS) else found


# -- what it is for --------------------------------------------------------------------------------


def _used(document: Document, part: Json, known: Known) -> tuple[Json, Path] | None:
    """The environment of a part of a document, inline or in another file, and its folder."""
    given = part.get("environment")
    if isinstance(given, dict):
        return given, document.here
    found = referred(given, "environment", known)
    return (found.content, found.here) if found else None


def _kinds(document: Document, known: Known) -> Iterator[str]:
    """Whether an environment has what runs a scoring script there."""
    for where, part in parts(document):
        used = _used(document, part, known)
        if not used:
            continue
        wanted, said = _wanted(document, part)
        found = _packages(*used)
        if found is not None and wanted and found.isdisjoint(wanted):
            yield f"{where}environment: it is of the wrong kind: {said}"


def _wanted(document: Document, part: Json) -> tuple[set[str], str]:
    if document.family == DEPLOYMENT and "code_configuration" in part:
        return _SERVERS, "it does not install azureml-inference-server-http, which runs the script"
    batch = document.family == BATCH_DEPLOYMENT and "code_configuration" in part
    if batch or "entry_script" in part:
        return _BATCH_RUNNERS, "it does not install azureml-core, which runs the script"
    return set(), ""


def _device(environment: Json, here: Path) -> Literal["cpu", "cuda"] | None:
    """What PyTorch in an environment is built for, where the files say it."""
    texts = [str(environment.get("image", ""))]
    if "conda_file" in environment:
        texts.append(str(_conda_content(environment["conda_file"], here)[0]))
    file = _dockerfile(environment, here)
    if file:
        texts.append(_COMMENTS.sub("", _text(file)))
        texts += ["\n".join(lines) for _, lines in _requirements(environment, here)]
    everything = "\n".join(texts)
    if _CPU_TORCH.search(everything):
        return "cpu"
    return "cuda" if _CUDA_TORCH.search(everything) else None


def _size(document: Document, known: Known) -> str | None:
    """The size of the machines that a deployment runs on, where it shows."""
    size = document.content.get("instance_type")
    if document.kind == "managedOnlineDeployment" and isinstance(size, str):
        return size
    compute = str(document.content.get("compute")).removeprefix("azureml:")
    cluster = known.find("compute", compute) if document.family == BATCH_DEPLOYMENT else None
    return str(cluster.content["size"]) if cluster and "size" in cluster.content else None


def _machines(document: Document, known: Known) -> Iterator[str]:
    """Whether machine, environment and SCORE_DEVICE are all for GPUs, or none of them is."""
    if document.family not in (DEPLOYMENT, BATCH_DEPLOYMENT):
        return
    field = "instance_type" if "instance_type" in document.content else "compute"
    size, used = _size(document, known), _used(document, document.content, known)
    built = _device(*used) if used else None
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
