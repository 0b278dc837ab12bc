"""Reads the YAML files of a folder, and recognises those for Azure ML and their kinds.

Azure itself does not read `$schema`: the command or the SDK's function decides what a file is.
Without that line the kind is guessed from a file's `type` and fields. All other files are skipped,
with a note for templates and for kinds of Azure ML files that are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from score.deploy.rules.notes import Note
from score.deploy.rules.spelling import misspelt
from score.deploy.values import mapping
from score.errors import AzureError
from score.type_aliases import Json

SCHEMAS = "azuremlschemas.azureedge.net"
ENDPOINT, DEPLOYMENT = "online endpoint", "online deployment"
BATCH_ENDPOINT, BATCH_DEPLOYMENT = "batch endpoint", "batch deployment"

# Schema name → family: kinds that other files refer to in the same way.
FAMILIES = {
    "managedOnlineEndpoint": ENDPOINT,
    "kubernetesOnlineEndpoint": ENDPOINT,
    "managedOnlineDeployment": DEPLOYMENT,
    "kubernetesOnlineDeployment": DEPLOYMENT,
    "batchEndpoint": BATCH_ENDPOINT,
    "batchDeployment": BATCH_DEPLOYMENT,
    "modelBatchDeployment": BATCH_DEPLOYMENT,
    "pipelineComponentBatchDeployment": BATCH_DEPLOYMENT,
    "model": "model",
    "data": "data",
    "environment": "environment",
    "commandComponent": "component",
    "parallelComponent": "component",
    "pipelineComponent": "component",
    "sparkComponent": "component",
    "commandJob": "job",
    "pipelineJob": "job",
    "sparkJob": "job",
    "sweepJob": "job",
    "amlCompute": "compute",
    "computeInstance": "compute",
}
# Other names for some of them, in the reference's examples and the SDK.
_ALIASES = {
    "onlineendpoint": "managedOnlineEndpoint",
    "onlinedeployment": "managedOnlineDeployment",
}
# Schemas of Azure's that nothing here checks.
_OTHERS = {
    *("autoMLJob", "azureBlob", "azureFile", "azureDataLakeGen1", "azureDataLakeGen2", "workspace"),
    *("registry", "schedule", "vmCompute", "kubernetesCompute", "synapseSparkCompute", "Flow"),
    *("flow", "Run", "importJob", "importComponent", "dataTransferJob", "monitorSchedule"),
    *("AzureOpenAIConnection", "workspaceConnection", "connection", "hub", "project"),
}
_TYPES = {
    "amlcompute": "amlCompute",
    "computeinstance": "computeInstance",
    "custom_model": "model",
    "mlflow_model": "model",
    "triton_model": "model",
}
_DATA = ("uri_file", "uri_folder", "mltable")
_ONLINE = {"instance_type", "request_settings", "readiness_probe", "liveness_probe"}
_ENVIRONMENT = {
    *("name", "version", "description", "tags", "image", "build", "conda_file", "os_type"),
    *("inference_config", "properties"),
}
# Fields that a job has and a component does not.
_JOB = {
    *("compute", "experiment_name", "limits", "services", "queue_settings", "identity", "settings"),
}
# `{{ … }}` of a template engine. Azure's bindings begin with a dollar sign; one that lacks it by
# mistake is no template.
_TEMPLATE = re.compile(
    rb"(?<!\$)\{\{(?!\s*(?:parent|inputs|outputs)\b)[^}\n]*\}\}"
    rb"|\{%-?\s*(?:if|for|set|block|include|extends|macro|end\w+)\b"
    rb"|^[^#\n]*:[ \t]+@\w",  # of `score azure render`; no YAML value may begin with @
    re.MULTILINE,
)
_COMMENT = re.compile(rb"(?:^|(?<=\s))#.*$", re.MULTILINE)
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Document:
    """A parsed YAML file for Azure ML."""

    file: Path
    kind: str  # the schema's name
    content: Json

    @property
    def name(self) -> str:
        """Its name, or empty."""
        return str(self.content.get("name", ""))

    @property
    def family(self) -> str:
        """Its family, by which other documents refer to it."""
        return FAMILIES[self.kind]

    @property
    def here(self) -> Path:
        """The folder to which its paths are relative."""
        return self.file.parent


@dataclass(frozen=True)
class Known:
    """The documents that references may name: first those to check, then those beside."""

    documents: Sequence[Document] = field(default=())

    def find(self, family: str, name: object) -> Document | None:
        """The document of this family and name, or None."""
        return next((one for one in self.of(family) if one.name == str(name)), None)

    def of(self, family: str) -> list[Document]:
        """All documents of a family."""
        return [one for one in self.documents if one.family == family]

    def names(self, family: str) -> list[str]:
        """The names of a family's documents."""
        return [one.name for one in self.of(family)]


def files(folders: Iterable[Path]) -> Iterator[Path]:
    """The YAML files in folders and their subfolders; a path may also be a file."""
    for folder in folders:
        paths = [folder, *folder.rglob("*")] if folder.exists() else []
        yield from sorted(
            file for file in paths if file.suffix in (".yml", ".yaml") and file.is_file()
        )


def beside(folders: Iterable[Path]) -> Iterator[Document]:
    """The documents in folders that are not checked. Files that cannot be read are skipped."""
    for file in files(folders):
        with suppress(AzureError):
            document = read(file)
            if isinstance(document, Document):
                yield document


def read(file: Path, *, named: bool = False) -> Document | Note | None:
    """A file as a document; None for a file that is not for Azure ML.

    `named`: whether it was asked for by its name, and must be YAML whatever it mentions.

    A note says why a file that mentions Azure ML is skipped: a template, several documents in one
    file, a schema that is not checked. Raises AzureError for a file that mentions Azure ML and is
    no YAML, and for a misspelt `$schema`.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        raise AzureError(f"{file}: cannot be read: {error.strerror}") from error
    azure = b"azureml" in text
    if placeholder := _TEMPLATE.search(_COMMENT.sub(b"", text)):
        shown = placeholder[0].decode("utf-8", errors="replace")
        return Note(f"{file}: not checked: {shown} makes it a template") if azure else None
    try:
        content = yaml.safe_load(text)
    except Exception as error:  # PyYAML's constructors raise whatever int(), float() and date() do
        if not azure and not named:
            return None
        if isinstance(error, yaml.composer.ComposerError) and "single" in str(error):
            return Note(f"{file}: not checked: it holds several documents")
        raise AzureError(f"{file}: no YAML: {error}") from error
    if not _finite(content):
        if azure:
            raise AzureError(f"{file}: its aliases make more than {_MOST_VALUES:,} values")
        return None
    if not isinstance(content, dict):
        return None
    kind = _kind(file, content)
    if kind:
        return Document(file, kind, content)
    address = str(content.get("$schema", ""))
    return Note(f"{file}: not checked: $schema {address}") if SCHEMAS in address else None


def _finite(content: object) -> bool:
    """Whether there are at most `_MOST_VALUES` values: YAML aliases may be recursive, or double the
    size at every level."""
    waiting, seen = [content], 0
    while waiting:
        seen += 1
        if seen > _MOST_VALUES:
            return False
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return True


def _kind(file: Path, content: Json) -> str | None:
    address = str(content.get("$schema", ""))
    name = address.rpartition("/")[2].removesuffix(".json").removesuffix(".schema")
    known = {kind.lower(): kind for kind in FAMILIES} | _ALIASES
    if name.lower() in known:
        return _typed(known[name.lower()], content)
    if SCHEMAS in address and name not in _OTHERS:
        near = misspelt(name, known.values())
        if near:
            raise AzureError(
                f"{file}: $schema: {address} is an unknown schema; did you mean {near}?"
            )
    return None if address else _guessed(content)


def _typed(kind: str, content: Json) -> str:
    """The kind by a document's `type`, which takes precedence over the schema's name."""
    named, family = str(content.get("type")).lower(), FAMILIES[kind]
    if family == BATCH_DEPLOYMENT:
        types = {"model": "modelBatchDeployment", "pipeline": "pipelineComponentBatchDeployment"}
        return types.get(named, kind)
    if family == DEPLOYMENT:
        return f"{named}OnlineDeployment" if named in ("managed", "kubernetes") else kind
    if family == ENDPOINT and "compute" in content:  # managed endpoints have none
        return "kubernetesOnlineEndpoint"
    suffix = family.title()
    return f"{named}{suffix}" if f"{named}{suffix}" in FAMILIES else kind


def _guessed(content: Json) -> str | None:
    """The kind of a file without `$schema`, or None."""
    kind, fields = str(content.get("type", "")).lower(), content.keys()
    if "endpoint_name" in fields:
        return _guessed_deployment(kind, content)
    if kind in _TYPES:
        return _TYPES[kind] if {"path", "size", "name"} & fields else None
    if kind in _DATA:
        return "data" if {"path", "name"} <= fields else None
    if kind == "parallel" and "task" in fields:
        return "parallelComponent"
    if kind == "spark" and "entry" in fields:
        return "sparkJob" if "resources" in fields or _runs(content) else "sparkComponent"
    if kind == "pipeline" and isinstance(content.get("jobs"), dict):
        return "pipelineJob" if _runs(content) else "pipelineComponent"
    if kind == "sweep" and "trial" in fields:
        return "sweepJob"
    if kind in ("", "command") and isinstance(content.get("command"), str):
        environment = content.get("environment")
        if str(environment).startswith("azureml:") or _ENVIRONMENT & mapping(environment).keys():
            return "commandJob" if _runs(content) else "commandComponent"
        return None
    if "name" in fields and {"traffic", "mirror_traffic", "auth_mode"} & fields and not kind:
        return "batchEndpoint" if "defaults" in fields else _typed("managedOnlineEndpoint", content)
    if {"image", "build"} & fields and "name" in fields and fields <= _ENVIRONMENT:
        return "environment"
    return None


def _guessed_deployment(kind: str, content: Json) -> str | None:
    if kind in ("model", "pipeline") or {"compute", "component"} & content.keys():
        return _typed("batchDeployment", content)
    if kind == "kubernetes":
        return "kubernetesOnlineDeployment"
    return "managedOnlineDeployment" if _ONLINE & content.keys() else None


def _runs(content: Json) -> bool:
    """Whether a file is a job, not a component: it has no name, or fields that only jobs have."""
    if "name" not in content or _JOB & content.keys():
        return True
    inputs = mapping(content.get("inputs")).values()
    return any(not isinstance(value, dict) or "path" in value for value in inputs)
