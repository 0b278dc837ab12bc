"""References of a document: to assets, endpoints, computes, files and code.

An asset that is not in the folders may be in the workspace, so that is a note. It is a problem
where the name is nearly that of an asset in the folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from score.deploy.rules import scripts
from score.deploy.rules.documents import (
    BATCH_DEPLOYMENT,
    BATCH_ENDPOINT,
    DEPLOYMENT,
    ENDPOINT,
    Document,
    Known,
)
from score.deploy.rules.notes import Note
from score.deploy.rules.parts import environments, models, parts
from score.deploy.rules.spelling import misspelt
from score.deploy.values import BINDING, at, mapping
from score.type_aliases import Json
from score.wording.suggestions import nearest

_ASSET = re.compile(r"azureml:([A-Za-z0-9][\w.-]*)(?:@[\w.-]+|:[\w.-]+)")
_COMPUTE = re.compile(r"(?:azureml:)?[A-Za-z][A-Za-z0-9-]*")
_ARM = re.compile(r"(?:azureml:)?/subscriptions/[^/]+/resource[Gg]roups/[^/]+/providers/.+")
_URI = re.compile(r"azureml://(?:registries|subscriptions|locations|feeds)/.+")
_SHARED = re.compile(r"azureml://registries/[^/]+/([a-z]+)/[^/]+(?:/(?:versions|labels)/[^/]+)?")
_ENDPOINTS = (ENDPOINT, BATCH_ENDPOINT)
_FAMILIES = (ENDPOINT, BATCH_ENDPOINT, "environment", "model", "component", "data")
_PLURALS = {"environment": ("environments",), "model": ("models",), "component": ("components",)}
_NEAR = 0.7  # difflib ratio above which a package's name counts as misspelt
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # azureml:…, https:…, wasbs:…


def referred(reference: object, family: str, known: Known) -> Document | None:
    """The document that `azureml:NAME@latest` or `azureml:NAME:VERSION` names, or None."""
    match = _ASSET.fullmatch(str(reference))
    return known.find(family, match[1]) if match else None


def served(document: Document, known: Known) -> tuple[Json, Path]:
    """A deployment's model, inline or in another document, and the folder of its relative paths.

    An empty mapping for a model in the workspace.
    """
    model = document.content.get("model")
    other = referred(model, "model", known)
    return (other.content, other.here) if other else (mapping(model), document.here)


def problems(document: Document, known: Known) -> Iterator[str]:
    """References to what does not exist, or is nearly spelled like what does."""
    for where, part in parts(document):
        for family in ("environment", "model"):
            if isinstance(part.get(family), str):
                yield from _asset(where + family, family, part[family], known)
        yield from _models(f"{where}inputs", part, known)
        yield from _compute(f"{where}compute", part.get("compute"), known)
        yield from _code(document, where, part)
    default = at(document.content, "settings.default_compute")
    yield from _compute("settings.default_compute", default, known)
    yield from _endpoint(document, known)
    for where, path in _paths(document):
        if not local(path) or os.path.exists(document.here / path):
            continue
        yield f"{where}: there is no {path}"


def local(path: str) -> bool:
    """Whether a path is a local one: no URL, ARM id or binding."""
    return (
        not _ELSEWHERE.match(path) and not path.startswith("/subscriptions/") and "${{" not in path
    )


def _asset(where: str, family: str, reference: str, known: Known) -> Iterator[str]:
    if BINDING.fullmatch(reference) or _ARM.fullmatch(reference):
        return
    if reference.startswith("azureml://"):
        yield from _shared(where, family, reference)
        return
    match = _ASSET.fullmatch(reference)
    if match is None:
        yield (
            f"{where}: {reference!r} is not azureml:NAME@latest, azureml:NAME:VERSION, "
            "azureml://registries/… or azureml:/subscriptions/…"
        )
    else:
        yield from _named(where, family, match[1], known)


def _models(where: str, part: Json, known: Known) -> Iterator[str]:
    """The registered models that inputs name: `{type: mlflow_model, path: azureml:…}`."""
    for port, value in mapping(part.get("inputs")).items():
        match = _ASSET.fullmatch(str(mapping(value).get("path")))
        if match and str(mapping(value).get("type")).endswith("_model"):
            yield from _named(f"{where}.{port}.path", "model", match[1], known)


def _shared(where: str, family: str, reference: str) -> Iterator[str]:
    match = _SHARED.fullmatch(reference)
    if match and match[1] not in _PLURALS[family]:
        yield f"{where}: {reference} is one of {match[1]}, and {_PLURALS[family][0]} are wanted"
    elif not match and not _URI.fullmatch(reference):
        yield f"{where}: {reference!r} is no azureml:// path of an asset"


def _named(where: str, family: str, name: str, known: Known) -> Iterator[str]:
    here = known.names(family)
    if name in here:
        return
    near = misspelt(name, here)
    # A model and its endpoint may have one name, as in Azure's own examples.
    alike = [one for one in _FAMILIES if (one in _ENDPOINTS) == (family in _ENDPOINTS)]
    other = next((one for one in alike if known.find(one, name)), None)
    if near:
        yield f"{where}: no {family} here is called {name!r}; did you mean {near!r}?"
    elif other:
        yield f"{where}: {name!r} is a {other} here, and no {family}"
    else:
        yield Note(f"{where}: no {family} here is called {name!r}: it must be in the workspace")


def _compute(where: str, compute: object, known: Known) -> Iterator[str]:
    if compute is None:
        return
    text = str(compute)
    if BINDING.fullmatch(text) or _ARM.fullmatch(text) or text.startswith("azureml://"):
        return
    if not isinstance(compute, str) or not _COMPUTE.fullmatch(text):
        yield f"{where}: {compute!r} is neither NAME nor azureml:NAME nor an ARM id"
        return
    name, here = text.removeprefix("azureml:"), known.names("compute")
    near = misspelt(name, here)
    if name not in here and near and name not in ("local", "serverless"):
        yield f"{where}: no compute here is called {name!r}; did you mean {near!r}?"


def _endpoint(document: Document, known: Known) -> Iterator[str]:
    families = {DEPLOYMENT: ENDPOINT, BATCH_DEPLOYMENT: BATCH_ENDPOINT}
    family, name = families.get(document.family), document.content.get("endpoint_name")
    if not family or name is None or known.find(family, name):
        return
    yield from _named("endpoint_name", family, str(name), known)


def _code(document: Document, where: str, part: Json) -> Iterator[str]:
    configuration = mapping(part.get("code_configuration"))
    code = configuration.get("code", part.get("code"))
    script = configuration.get("scoring_script", part.get("entry_script"))
    if code is None or not local(str(code)):
        return
    folder = document.here / str(code)
    if not os.path.exists(folder):
        yield f"{where}code: there is no folder {code}"
        return
    if not os.path.isdir(folder):  # a job's code may be a file
        return
    if script is not None:
        yield from scripts.problems(
            _script(folder, str(script)),
            f"{where}{script}",
            most=1 if document.family == DEPLOYMENT else 2,
            prepared="entry_script" not in part,
        )
    entry = part.get("entry")  # of a Spark job
    file = entry.get("file") if isinstance(entry, dict) else None
    if file is not None and not os.path.isfile(folder / str(file)):
        yield f"{where}entry.file: there is no {file} below {code}"
    yield from _module(f"{where}command", folder, str(part.get("command", "")))


def _script(folder: Path, name: str) -> Path:
    """A script's file; the batch runner accepts a module's name, too."""
    module = folder.joinpath(*f"{name.replace('.', '/')}.py".split("/"))
    return module if os.path.isfile(module) else folder / name


def _module(where: str, folder: Path, command: str) -> Iterator[str]:
    """A misspelt module of `python -m MODULE`; others may be installed in the environment."""
    match = re.match(r"\s*python3? -m ([\w.]+)", command)
    if match is None:
        return
    path = folder.joinpath(*match[1].split("."))
    if os.path.isfile(f"{path}.py") or os.path.isfile(path / "__main__.py"):
        return
    package = match[1].partition(".")[0]
    near = nearest(package, [file.stem for file in folder.iterdir()], cutoff=_NEAR)
    if near:
        hint = "" if near == package else f"; did you mean {near}?"
        yield f"{where}: there is no module {match[1]} in the code{hint}"


def _paths(document: Document) -> Iterator[tuple[str, str]]:
    for where, model in models(document):
        if isinstance(model.get("path"), str):
            yield f"{where}path", model["path"]
    for where, environment in environments(document):
        if isinstance(environment.get("conda_file"), str):
            yield f"{where}conda_file", environment["conda_file"]
        folder = at(environment, "build.path")
        if isinstance(folder, str):
            yield f"{where}build.path", folder
            file = at(environment, "build.dockerfile_path") or "Dockerfile"
            yield f"{where}build.dockerfile_path", f"{folder}/{file}"
    for where, part in parts(document):
        component = part.get("component")
        if isinstance(component, str):
            yield f"{where}component", component.removeprefix("file:")
        for port, value in mapping(part.get("inputs")).items():
            path = value.get("path") if isinstance(value, dict) else None
            if isinstance(path, str) and document.family == "job":
                yield f"{where}inputs.{port}.path", path
    if document.kind == "data" and isinstance(document.content.get("path"), str):
        yield "path", document.content["path"]
