"""What azure-ai-ml's own loaders refuse, and unknown fields that they accept."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azure.ai.ml import entities
from azure.ai.ml._schema.component.command_component import CommandComponentSchema
from azure.ai.ml._schema.component.parallel_component import ParallelComponentSchema
from azure.ai.ml._schema.component.parallel_task import ComponentParallelTaskSchema
from azure.ai.ml._schema.component.resource import ComponentResourceSchema
from azure.ai.ml._schema.component.retry_settings import RetrySettingsSchema
from azure.ai.ml._schema.component.spark_component import SparkComponentSchema
from azure.ai.ml._schema.pipeline.pipeline_component import PipelineComponentSchema
from azure.ai.ml.entities import _load_functions as loaders
from marshmallow import ValidationError

from score.deploy.rules.documents import Document
from score.deploy.rules.notes import Note
from score.deploy.values import mapping
from score.type_aliases import Json

_LOADERS: Mapping[str, Callable[..., Any]] = {
    "managedOnlineEndpoint": loaders.load_online_endpoint,
    "kubernetesOnlineEndpoint": loaders.load_online_endpoint,
    "managedOnlineDeployment": loaders.load_online_deployment,
    "kubernetesOnlineDeployment": loaders.load_online_deployment,
    "batchEndpoint": loaders.load_batch_endpoint,
    "batchDeployment": loaders.load_batch_deployment,
    "modelBatchDeployment": loaders.load_model_batch_deployment,
    "pipelineComponentBatchDeployment": loaders.load_pipeline_component_batch_deployment,
    "model": loaders.load_model,
    "data": loaders.load_data,
    "environment": loaders.load_environment,
    "commandComponent": loaders.load_component,
    "parallelComponent": loaders.load_component,
    "pipelineComponent": loaders.load_component,
    "sparkComponent": loaders.load_component,
    "commandJob": loaders.load_job,
    "pipelineJob": loaders.load_job,
    "sparkJob": loaders.load_job,
    "sweepJob": loaders.load_job,
    "amlCompute": loaders.load_compute,
    "computeInstance": loaders.load_compute,
}
# Fields that Azure's examples leave to the command line, as `--set compute=…`, with placeholders.
_GIVEN_LATER: Mapping[str, Mapping[str, str]] = {
    "managedOnlineDeployment": {"endpoint_name": "given-later"},
    "kubernetesOnlineDeployment": {"endpoint_name": "given-later"},
    "batchDeployment": {"endpoint_name": "given-later", "compute": "given-later"},
    "modelBatchDeployment": {"endpoint_name": "given-later", "compute": "given-later"},
    "pipelineComponentBatchDeployment": {"endpoint_name": "given-later"},
}
# Kinds whose loaders accept unknown fields.
_OPEN: Mapping[str, type[Any]] = {
    "commandComponent": CommandComponentSchema,
    "parallelComponent": ParallelComponentSchema,
    "pipelineComponent": PipelineComponentSchema,
    "sparkComponent": SparkComponentSchema,
}
# Parts of parallel components whose fields no loader checks.
_OPEN_PARTS: Mapping[str, type[Any]] = {
    "task": ComponentParallelTaskSchema,
    "retry_settings": RetrySettingsSchema,
    "resources": ComponentResourceSchema,
}
# Fields of a component's input or output.
_PORT = {"type", "description", "default", "optional", "min", "max", "enum", "mode", "path", "name"}
_PORT |= {"version", "is_control", "early_available", "intellectual_property"}
# learn.microsoft.com/azure/machine-learning: reference-yaml-job-pipeline, "settings"; of a
# deployment's, reference-yaml-deployment-batch.
_PIPELINE = {"default_compute", "default_datastore", "continue_on_step_failure", "force_rerun"}
_SETTINGS = {
    "pipelineComponentBatchDeployment": _PIPELINE,
    "pipelineJob": _PIPELINE | {"continue_run_on_failed_optional_input", "_dataset_access_mode"},
}


def problems(document: Document) -> Iterator[str]:
    """What azure-ai-ml refuses, unknown fields, and fields that the command line must set."""
    missing = {
        name: value
        for name, value in _GIVEN_LATER.get(document.kind, {}).items()
        if name not in document.content
    }
    yield from (Note(f"{name}: is not here: give it on the command line") for name in missing)
    refused = _refused(document, missing)
    if refused:
        yield refused
    yield from _unknown(document)


def _refused(document: Document, missing: Json) -> str | None:
    """The error of the loader, or of a component's validation; None for a valid file."""
    override = [{name: value} for name, value in missing.items()]
    if (
        document.kind == "kubernetesOnlineDeployment"
    ):  # an example of Azure's names it only in $schema
        override.append({"type": "kubernetes"})
    try:
        with warnings.catch_warnings(), _errors_alone():
            warnings.simplefilter("ignore")
            entity = _LOADERS[document.kind](document.file, params_override=override)
            validated = entity._validate() if isinstance(entity, entities.Component) else None
    except Exception as error:  # the SDK has no common error class
        message = " ".join(str(error).split()).partition("If you are trying to configure")[0]
        message = message.partition("Tip: ")[0].partition("Visit this link")[0]  # general advice
        return f"azure-ai-ml refuses it: {message[:600].strip()}"
    if validated is None or validated.passed:
        return None
    return "azure-ai-ml refuses it: " + "; ".join(
        f"{path}: {message}" for path, message in validated.error_messages.items()
    )


@contextmanager
def _errors_alone() -> Iterator[None]:
    """The SDK logs a warning for each of its own classes that is experimental."""
    log = logging.getLogger("azure.ai.ml")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _unknown(document: Document) -> Iterator[str]:
    content, kind = document.content, document.kind
    if kind in _OPEN:
        known = {*_instance(_OPEN[kind], document.here).fields, "$schema"}
        yield from (f"{name}: unknown field" for name in content if name not in known)
        for side in ("inputs", "outputs"):
            for port, value in mapping(content.get(side)).items():
                unknown = [name for name in mapping(value) if name not in _PORT]
                yield from (f"{side}.{port}.{name}: unknown field" for name in unknown)
    if kind == "sparkComponent":
        entry = mapping(content.get("entry"))
        names = ("file", "class_name")
        yield from (f"entry.{name}: unknown field" for name in entry if name not in names)
    if kind == "parallelComponent":
        for part, schema in _OPEN_PARTS.items():
            yield from _part(document, part, schema)
    if kind in _SETTINGS:
        settings = mapping(content.get("settings"))
        unknown = [name for name in settings if name not in _SETTINGS[kind]]
        yield from (f"settings.{name}: unknown field" for name in unknown)


def _part(document: Document, part: str, schema: type[Any]) -> Iterator[str]:
    fields = document.content.get(part, {})
    if not isinstance(fields, dict):
        yield f"{part}: {fields!r} is no mapping"
        return
    schema_object = _instance(schema, document.here)
    unknown = [name for name in fields if name not in schema_object.fields]
    yield from (f"{part}.{name}: unknown field" for name in unknown)
    try:
        schema_object.load({name: fields[name] for name in fields if name not in unknown})
    except ValidationError as error:
        yield f"{part}: {' '.join(str(error).split())}"


def _instance(schema: type[Any], base: Path) -> Any:
    # azure-ai-ml uses marshmallow in a deprecated way, and logs each of its experimental classes.
    with warnings.catch_warnings(), _errors_alone():
        warnings.simplefilter("ignore", DeprecationWarning)
        return schema(context={"base_path": base})
