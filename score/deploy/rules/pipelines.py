"""Pipelines: their steps, what is bound to what, what the steps run on, and what endpoints pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from score.arrays import Json
from score.deploy.rules.documents import Document, read
from score.deploy.rules.references import local
from score.deploy.values import BINDING, at, literal, mapping
from score.errors import AzureError, meant

# What a step that names a component may say beside its own type's settings.
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
# Folders in storage, whatever lies in them; a step gets a path either way.
_FOLDERS = {"uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"}

_VALUES = {"uri_file", "integer", "number", "boolean"}  # any of these may be a string's
# "Data inputs" and "literal inputs" are all that a pipeline component deployment takes, and tables
# (mltable) are not supported; models neither: azure-ai-ml looks every path up among data assets.
# https://learn.microsoft.com/azure/machine-learning/how-to-access-data-batch-endpoints-jobs
_DATA = ("uri_file", "uri_folder")
_LITERALS = ("string", "boolean", "number", "float", "integer")
# A model as output is in Azure's own example (azureml-examples, cli/endpoints/batch/
# deploy-pipelines/training-with-components).
_PASSED = {"inputs": (*_DATA, *_LITERALS), "outputs": (*_DATA, "mlflow_model", "custom_model")}


@dataclass(frozen=True)
class _Pipeline:
    document: Document
    where: str  # the path before its fields' names
    content: Json

    def component(self, step: Json) -> Json | None:
        """What a step runs, inline or in a file; None for what is elsewhere, or cannot be read."""
        given = step.get("component", step.get("trial"))
        if isinstance(given, dict):
            return given
        if given is None:
            return step if {"command", "task", "entry", "jobs"} & step.keys() else None
        path = str(given).removeprefix("file:")
        file = self.document.here / path
        if not local(path) or not os.path.isfile(file):
            return None
        with suppress(AzureError):  # which the file's own check tells
            found = read(file)
            if isinstance(found, Document) and found.family in ("component", "job"):
                return found.content
        return None


def problems(document: Document) -> Iterator[str]:
    """What is wrong with the pipelines in a document."""
    if document.kind in ("pipelineJob", "pipelineComponent"):
        pipeline = _Pipeline(document, "", document.content)
        if "jobs" in document.content:
            yield from _pipeline(pipeline)
        elif made := pipeline.component(document.content):
            yield from _fits("", document.content, made, "pipeline")
        if document.kind == "pipelineJob" and not _compute(document.content):
            yield from _computes(pipeline, "")
    if document.kind == "pipelineComponentBatchDeployment":
        pipeline = _Pipeline(document, "", document.content)
        yield from _passed(pipeline)
        if not _compute(document.content):
            yield from _computes(pipeline, "component.")


def _passed(deployment: _Pipeline) -> Iterator[str]:
    """A sentence for each port that a batch endpoint cannot pass to a deployment's pipeline."""
    content, given = deployment.content, deployment.content.get("component")
    component = deployment.component(content) if given is not None else None
    where = "component" if isinstance(given, dict) else f"component: {given}"
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
        yield from (f"{where}.{key}: unknown field{meant(str(key), _STEP)}" for key in unknown)
    elif not {"command", "task", "entry", "jobs", "trial"} & step.keys():
        yield f"{where}: it has no component, and no command of its own"
    made = components[name]
    if made is not step and made is not None:
        yield from _fits(f"{where}.", step, made, kind)
    for side in ("inputs", "outputs"):
        for given, value in mapping(step.get(side)).items():
            wanted = mapping(at(made, f"{side}.{given}")) if made is not step else {}
            yield from _end(pipeline, components, f"{where}.{side}.{given}", value, wanted)


def _fits(where: str, step: Json, made: Json, kind: str) -> Iterator[str]:
    """Whether a step's inputs and outputs are those of its component."""
    own = str(made.get("type", "command"))
    if "type" in step and kind not in (own, "sweep"):
        yield f"{where}type: its component is a {own}"
    for side in ("inputs", "outputs"):
        ports = mapping(made.get(side))
        for given in mapping(step.get(side)):
            if given not in ports:
                hint = meant(str(given), map(str, ports))
                yield f"{where}{side}.{given}: its component has none of that name{hint}"
    searched = mapping(step.get("search_space"))
    for needed, port in mapping(made.get("inputs")).items():
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
    """Whether the other end of a step's binding is there, and of the type that is wanted."""
    text = value.get("path") if isinstance(value, dict) else value
    match = BINDING.fullmatch(str(text).strip())
    if match is None:
        if isinstance(value, dict) and wanted:
            yield from _asset(where, value, wanted)
        elif wanted and not BINDING.search(str(value)):
            yield from literal(where, value, wanted)
        return
    parts = match[1].strip().split(".")
    if parts[0] != "parent":  # the older form, to which Azure adds it
        parts = ["parent", *parts]
    found: object = None
    if len(parts) == 3 and parts[1] in ("inputs", "outputs"):
        found = _port(pipeline.content, parts[1], parts[2])
    elif len(parts) == 5 and parts[1] == "jobs" and parts[3] == "outputs":
        found = _made(pipeline, components, parts[2], parts[4])
    if found is None:
        yield f"{where}: {text} leads nowhere"
    else:
        yield from _same(where, str(text), found, wanted)


def _asset(where: str, given: Json, wanted: Json) -> Iterator[str]:
    """What is wrong with an input or output that a step spells out: `{type: …, path: …}`."""
    if "path" not in given and ".inputs." in where:
        yield f"{where}.path: is missing"
    said = {"type": given.get("type", "uri_folder")}  # Azure's default
    yield from _same(where, str(given.get("path")), said, wanted)


def _port(content: Json, side: str, name: str) -> object:
    """An input or output; one without a value is there all the same: `outputs: {table: }`."""
    ports = mapping(content.get(side))
    return (ports[name] or {}) if name in ports else None


def _made(
    pipeline: _Pipeline, components: Mapping[str, Json | None], job: str, output: str
) -> object:
    """What another step writes; anything, where its component cannot be read."""
    step = mapping(at(pipeline.content, "jobs")).get(job)
    if not isinstance(step, dict):
        return None
    made = components.get(job)
    if made is None or output in mapping(step.get("outputs")):
        return _port(made or {}, "outputs", output) or {}
    return _port(made, "outputs", output)


def _same(where: str, text: str, found: object, wanted: Json) -> Iterator[str]:
    if not isinstance(found, dict) or "type" not in found or "type" not in wanted:  # a value
        return
    given, asked = str(found["type"]), str(wanted["type"])
    alike = {given, asked} <= _FOLDERS or (given, asked) == ("integer", "number")
    if given != asked and not alike and {given, asked} <= _FOLDERS | _VALUES:
        yield f"{where}: {text} is a {given}, and a {asked} is wanted"


def _computes(pipeline: _Pipeline, where: str) -> Iterator[str]:
    """A pipeline names a compute for all its steps, or every step has its own.

    how-to-use-serverless-compute: a pipeline that is to run on serverless compute says so, too.
    What a pipeline within runs on is seen where its file is here.
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
