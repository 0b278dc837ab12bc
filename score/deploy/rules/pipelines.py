"""Pipelines: their steps, bindings and computes, and the inputs that a batch endpoint can pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from score.deploy.rules.documents import Document, read
from score.deploy.rules.references import local
from score.deploy.values import BINDING, at, literal, mapping
from score.errors import AzureError
from score.type_aliases import Json
from score.wording.suggestions import suggestion

# Fields of a step that names a component.
_STEP = {
    *("type", "component", "trial", "inputs", "outputs", "compute", "resources", "limits", "name"),
    *("environment", "environment_variables", "display_name", "description", "queue_settings"),
    *("mini_batch_size", "max_concurrency_per_instance", "retry_settings", "logging_level"),
    *("error_threshold", "mini_batch_error_threshold", "partition_keys", "input_data", "task"),
    *("conf", "entry", "args", "py_files", "jars", "files", "archives", "code", "command"),
    *("identity", "distribution", "services", "settings", "properties", "tags", "comment"),
    *("sampling_algorithm", "search_space", "objective", "early_termination", "experiment_name"),
    *("deterministic", "is_deterministic", "source", "sink", "data_copy_mode", "jobs", "version"),
    "$schema",
}
_OWN = ("automl", "finetuning", "distillation", "if_else", "do_while", "data_transfer", "import")
# Types that are folders in storage: a step gets a path, whatever the type.
_FOLDERS = {"uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"}

_VALUES = {"uri_file", "integer", "number", "boolean"}  # a string accepts any of them
# A pipeline component deployment takes "data inputs" and "literal inputs" only. Tables (mltable)
# are not supported, and no models: azure-ai-ml looks up every path among data assets.
# https://learn.microsoft.com/azure/machine-learning/how-to-access-data-batch-endpoints-jobs
_DATA = ("uri_file", "uri_folder")
_LITERALS = ("string", "boolean", "number", "float", "integer")
# A model as output is in Azure's own example (azureml-examples, cli/endpoints/batch/
# deploy-pipelines/training-with-components).
_PASSED = {"inputs": (*_DATA, *_LITERALS), "outputs": (*_DATA, "mlflow_model", "custom_model")}


@dataclass(frozen=True)
class _Pipeline:
    document: Document
    where: str  # the path prefix of its fields
    content: Json

    def component(self, step: Json) -> Json | None:
        """The component that a step runs, inline or in a file; None where it cannot be read."""
        component = step.get("component", step.get("trial"))
        if isinstance(component, dict):
            return component
        if component is None:
            return step if {"command", "task", "entry", "jobs"} & step.keys() else None
        path = str(component).removeprefix("file:")
        file = self.document.here / path
        if not local(path) or not os.path.isfile(file):
            return None
        with suppress(AzureError):  # the check of that file reports it
            document = read(file)
            if isinstance(document, Document) and document.family in ("component", "job"):
                return document.content
        return None


def problems(document: Document) -> Iterator[str]:
    """What is wrong with the pipelines in a document."""
    if document.kind in ("pipelineJob", "pipelineComponent"):
        pipeline = _Pipeline(document, "", document.content)
        if "jobs" in document.content:
            yield from _pipeline(pipeline)
        elif component := pipeline.component(document.content):
            yield from _fits("", document.content, component, "pipeline")
        if document.kind == "pipelineJob" and not _compute(document.content):
            yield from _computes(pipeline, "")
    if document.kind == "pipelineComponentBatchDeployment":
        pipeline = _Pipeline(document, "", document.content)
        yield from _passed(pipeline)
        if not _compute(document.content):
            yield from _computes(pipeline, "component.")


def _passed(deployment: _Pipeline) -> Iterator[str]:
    """Inputs and outputs that a batch endpoint cannot pass to a deployment's pipeline."""
    content, named = deployment.content, deployment.content.get("component")
    component = deployment.component(content) if named is not None else None
    where = "component" if isinstance(named, dict) else f"component: {named}"
    for side, allowed in _PASSED.items():
        for name, port in mapping(mapping(component).get(side)).items():
            kind = mapping(port).get("type")
            if kind not in allowed:
                yield (
                    f"{where}: {side}.{name} is a {kind}, and a batch endpoint passes "
                    f"{', '.join(allowed)} only; name models in the step that uses them"
                )


def _pipeline(pipeline: _Pipeline) -> Iterator[str]:
    jobs = mapping(pipeline.content.get("jobs"))
    steps = {str(name): step for name, step in jobs.items() if isinstance(step, dict)}
    components = {name: pipeline.component(step) for name, step in steps.items()}
    for name, step in steps.items():
        yield from _step(pipeline, name, step, components)
    bound = set(re.findall(r"\$\{\{\s*parent\.outputs\.(\w+)\s*\}\}", str(jobs)))
    known = all(component is not None for component in components.values())
    for name in mapping(pipeline.content.get("outputs")) if known else ():
        if name not in bound and f"outputs.{name}" not in str(jobs):
            yield f"{pipeline.where}outputs.{name}: no step writes it"


def _step(
    pipeline: _Pipeline, name: str, step: Json, components: Mapping[str, Json | None]
) -> Iterator[str]:
    where = f"{pipeline.where}jobs.{name}"
    kind = str(step.get("type", "command")).lower()
    if kind in _OWN:
        return
    if isinstance(step.get("jobs"), dict):
        yield from _pipeline(_Pipeline(pipeline.document, f"{where}.", step))
    if "component" in step:
        unknown = [key for key in step if key not in _STEP]
        yield from (f"{where}.{key}: unknown field{suggestion(str(key), _STEP)}" for key in unknown)
    elif not {"command", "task", "entry", "jobs", "trial"} & step.keys():
        yield f"{where}: it has no component, and no command of its own"
    component = components[name]
    if component is not step and component is not None:
        yield from _fits(f"{where}.", step, component, kind)
    for side in ("inputs", "outputs"):
        for port, value in mapping(step.get(side)).items():
            wanted = mapping(at(component, f"{side}.{port}")) if component is not step else {}
            yield from _end(pipeline, components, f"{where}.{side}.{port}", value, wanted)


def _fits(where: str, step: Json, component: Json, kind: str) -> Iterator[str]:
    """Whether a step's inputs and outputs are those of its component."""
    own = str(component.get("type", "command"))
    if "type" in step and kind not in (own, "sweep"):
        yield f"{where}type: its component is a {own}"
    for side in ("inputs", "outputs"):
        ports = mapping(component.get(side))
        for name in mapping(step.get(side)):
            if name not in ports:
                hint = suggestion(str(name), map(str, ports))
                yield f"{where}{side}.{name}: its component has none of that name{hint}"
    searched = mapping(step.get("search_space"))
    for needed, port in mapping(component.get("inputs")).items():
        optional = not isinstance(port, dict) or port.get("optional") or "default" in port
        if not optional and needed not in mapping(step.get("inputs")) and needed not in searched:
            yield f"{where}inputs.{needed}: is missing"


def _end(
    pipeline: _Pipeline,
    components: Mapping[str, Json | None],
    where: str,
    value: object,
    wanted: Json,
) -> Iterator[str]:
    """Whether the other end of a step's binding exists, and has the type `wanted`."""
    text = value.get("path") if isinstance(value, dict) else value
    match = BINDING.fullmatch(str(text).strip())
    if match is None:
        if isinstance(value, dict) and wanted:
            yield from _asset(where, value, wanted)
        elif wanted and not BINDING.search(str(value)):
            yield from literal(where, value, wanted)
        return
    parts = match[1].strip().split(".")
    if parts[0] != "parent":  # the older form, which Azure completes
        parts = ["parent", *parts]
    source: object = None
    if len(parts) == 3 and parts[1] in ("inputs", "outputs"):
        source = _port(pipeline.content, parts[1], parts[2])
    elif len(parts) == 5 and parts[1] == "jobs" and parts[3] == "outputs":
        source = _output(pipeline, components, parts[2], parts[4])
    if source is None:
        yield f"{where}: {text} leads nowhere"
    else:
        yield from _same_type(where, str(text), source, wanted)


def _asset(where: str, asset: Json, wanted: Json) -> Iterator[str]:
    """What is wrong with an input or output in the long form: `{type: …, path: …}`."""
    if "path" not in asset and ".inputs." in where:
        yield f"{where}.path: is missing"
    typed = {"type": asset.get("type", "uri_folder")}  # Azure's default
    yield from _same_type(where, str(asset.get("path")), typed, wanted)


def _port(content: Json, side: str, name: str) -> object:
    """An input or output, or None; an empty mapping where it has no value: `outputs: {table: }`."""
    ports = mapping(content.get(side))
    return (ports[name] or {}) if name in ports else None


def _output(
    pipeline: _Pipeline, components: Mapping[str, Json | None], job: str, output: str
) -> object:
    """An output of another step; an empty mapping where that step's component cannot be read."""
    step = mapping(at(pipeline.content, "jobs")).get(job)
    if not isinstance(step, dict):
        return None
    component = components.get(job)
    if component is None or output in mapping(step.get("outputs")):
        return _port(component or {}, "outputs", output) or {}
    return _port(component, "outputs", output)


def _same_type(where: str, text: str, source: object, wanted: Json) -> Iterator[str]:
    if not isinstance(source, dict) or "type" not in source or "type" not in wanted:  # a value
        return
    actual, expected = str(source["type"]), str(wanted["type"])
    alike = {actual, expected} <= _FOLDERS or (actual, expected) == ("integer", "number")
    if actual != expected and not alike and {actual, expected} <= _FOLDERS | _VALUES:
        yield f"{where}: {text} is a {actual}, and a {expected} is wanted"


def _computes(pipeline: _Pipeline, where: str) -> Iterator[str]:
    """Steps without a compute, in a pipeline without a default one.

    Serverless compute must be named, too (how-to-use-serverless-compute). Nested pipelines are
    checked where their files can be read.
    """
    inner = pipeline.component(pipeline.content) if "jobs" not in pipeline.content else None
    jobs = mapping((inner or pipeline.content).get("jobs"))
    for name, step in jobs.items():
        if not isinstance(step, dict) or _compute(step):
            continue
        kind = str(step.get("type", "command")).lower()
        if kind == "pipeline":
            yield from _computes(replace(pipeline, content=step), f"{where}jobs.{name}.")
        elif not (kind == "spark" and step.get("resources")) and kind not in (
            "if_else",
            "do_while",
        ):
            yield (
                f"{where}jobs.{name}.compute: there is none, and no settings.default_compute: for "
                "serverless compute, azureml:serverless"
            )


def _compute(content: Json) -> bool:
    return bool(at(content, "settings.default_compute") or content.get("compute"))
