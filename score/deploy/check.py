"""Whether files for Azure ML are right, as far as that shows without Azure.

Each file goes through azure-ai-ml's own loader, which refuses unknown fields and wrong types; where
its schemas let unknown fields of a nested part pass, those parts are checked here. Then everything
that a file refers to must be there: code, entry scripts with `init()` and `run()`, components,
environments, models, sizes of machines, and the other end of each `${{…}}`.
"""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
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

from score.deploy import ports, shipped, values
from score.deploy.plan import LONGEST_REQUEST_SECONDS
from score.errors import AzureError

Json = Mapping[str, Any]

_LOADERS: Mapping[str, Callable[..., Any]] = {
    "managedOnlineEndpoint": loaders.load_online_endpoint,
    "managedOnlineDeployment": loaders.load_online_deployment,
    "batchEndpoint": loaders.load_batch_endpoint,
    "modelBatchDeployment": loaders.load_model_batch_deployment,
    "pipelineComponentBatchDeployment": loaders.load_pipeline_component_batch_deployment,
    "model": loaders.load_model,
    "environment": loaders.load_environment,
    "commandComponent": loaders.load_component,
    "parallelComponent": loaders.load_component,
    "pipelineComponent": loaders.load_component,
    "sparkComponent": loaders.load_component,
    "pipelineJob": loaders.load_job,
}

# Parts of components in which azure-ai-ml lets anything pass.
_OPEN: Mapping[str, type[Any]] = {
    "task": ComponentParallelTaskSchema,
    "retry_settings": RetrySettingsSchema,
    "resources": ComponentResourceSchema,
}

# What files that are no concern of Azure's schemas begin with: conda's environments, tables of
# sizes; and a job's inputs, which are nothing else.
_OTHERS = {"channels", "dependencies", "skus"}

# It tells everybody which of its own classes are experiments.
logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)

_COMPONENTS: Mapping[str, type[Any]] = {
    "commandComponent": CommandComponentSchema,
    "parallelComponent": ParallelComponentSchema,
    "pipelineComponent": PipelineComponentSchema,
    "sparkComponent": SparkComponentSchema,
}
# What an input or output of a component may say.
_PORT = {"type", "description", "default", "optional", "min", "max", "enum", "mode"}

# https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-batch
_PIPELINE_SETTINGS = ("default_compute", "default_datastore", "continue_on_step_failure")

_BINDING = re.compile(r"\$\{\{(.*?)\}\}")
_ASSET = re.compile(r"azureml:([\w.-]+)(?:@latest|:[\w.-]+)$")
_ELSEWHERE = "azureml://"  # an asset of a registry

# What a step of a pipeline may say of its component beside the latter's own fields.
_STEP = {
    *("type", "component", "inputs", "outputs", "compute", "resources", "limits", "identity"),
    *("environment", "environment_variables", "display_name", "description", "queue_settings"),
    *("mini_batch_size", "max_concurrency_per_instance", "retry_settings", "logging_level"),
    *("error_threshold", "mini_batch_error_threshold", "conf"),
}


@dataclass(frozen=True)
class Document:
    """A YAML file for Azure, parsed."""

    file: Path
    kind: str  # the schema's name
    content: Json

    @property
    def name(self) -> str:
        """What it calls itself."""
        return str(self.content.get("name", ""))


def check(folders: Sequence[Path], beside: Sequence[Path] = ()) -> list[str]:
    """A sentence for everything that is wrong with the YAML files below these folders.

    Their environments, models and endpoints may be their own, or in the folders `beside`, which are
    not checked. A file that is nothing of Azure's is passed over: an environment of conda's, a
    table of sizes, a job's inputs. Raises AzureError for folders in which there is nothing else.
    """
    problems: list[str] = []
    documents = []
    for file in _files(folders):
        try:
            document = _open(file)
        except AzureError as error:
            problems.append(str(error))
            continue
        if document:
            documents.append(document)
    if not documents and not problems:
        raise AzureError(f"no YAML for Azure in {', '.join(map(str, folders))}")
    known = {(_family(document.kind), document.name) for document in documents}
    known |= set(_beside(beside))
    for document in documents:
        problems += [f"{document.file}: {problem}" for problem in _problems(document, known)]
    return problems


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        files = [folder, *folder.rglob("*")] if folder.exists() else []
        yield from sorted(file for file in files if file.suffix in (".yml", ".yaml"))


def _beside(folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for file in _files(folders):
        with suppress(AzureError):
            if document := _open(file):
                yield _family(document.kind), document.name


def _open(file: Path) -> Document | None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AzureError(f"{file}: no YAML: {error}") from error
    if not isinstance(content, dict) or _OTHERS & content.keys() or set(content) == {"inputs"}:
        return None
    if "$schema" not in content:
        raise AzureError(f"{file}: $schema: missing, so there is no telling what it is")
    address = str(content["$schema"])
    kind = address.rpartition("/")[2].removesuffix(".schema.json")
    if kind not in _LOADERS or not address.startswith("https://azuremlschemas.azureedge.net/"):
        raise AzureError(f"{file}: $schema: {address} is none that is known here")
    return Document(file, kind, content)


def _family(kind: str) -> str:
    return "component" if kind.endswith("Component") else kind


def _problems(document: Document, known: set[tuple[str, str]]) -> Iterator[str]:
    refused = _refused(document)
    if refused:
        yield refused
    try:  # all at once, so that a file which azure-ai-ml refuses in so many words is told plainly
        found = [
            *_fields(document),
            *_references(document, known),
            *_bound(document),
            *values.problems(document.kind, document.content, document.file.parent),
            *ports.behind_endpoint(document.kind, document.content, document.file.parent),
            *shipped.problems(document.kind, document.content, document.file.parent),
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        if not refused:  # of another shape than anything here expects
            raise
        return
    yield from found


def _bound(document: Document) -> Iterator[str]:
    return _steps(document) if "jobs" in document.content else _bindings(document)


def _refused(document: Document) -> str | None:
    """What azure-ai-ml's loader and its validation have against it."""
    try:
        entity = _LOADERS[document.kind](document.file)
    except Exception as error:  # the SDK has no one error for what it will not load
        said = " ".join(str(error).split()).partition("If you are trying to configure")[0]
        said = said.partition("Tip: ")[0]  # to use another editor
        return f"azure-ai-ml refuses it: {said[:600].strip()}"
    if isinstance(entity, entities.Component):
        result = entity._validate()
        if not result.passed:
            return "azure-ai-ml refuses it: " + "; ".join(
                f"{path}: {message}" for path, message in result.error_messages.items()
            )
    return None


def _fields(document: Document) -> Iterator[str]:
    """Fields that azure-ai-ml passes over, and values that it takes and Azure does not."""
    content = document.content
    schema = _COMPONENTS.get(document.kind)
    if schema:
        known = _opened(schema, document.file.parent).fields
        yield from (f"{name}: unknown field" for name in content if name not in {*known, "$schema"})
        for side in ("inputs", "outputs"):
            for port, given in (content.get(side) or {}).items():
                unknown = [name for name in given if name not in _PORT]
                yield from (f"{side}.{port}.{name}: unknown field" for name in unknown)
    if document.kind == "sparkComponent":
        yield from (f"entry.{name}: unknown field" for name in content["entry"] if name != "file")
    if document.kind == "managedOnlineDeployment":
        given = content.get("request_settings") or {}
        most = 1000 * LONGEST_REQUEST_SECONDS
        if int(given.get("request_timeout_ms", 0)) > most:
            yield f"request_settings.request_timeout_ms: {most} is the most"
    if document.kind == "parallelComponent":
        for part, inner in _OPEN.items():
            yield from _part(document, part, inner)
    settings = content.get("settings")
    if not isinstance(settings, dict):
        return
    if document.kind == "modelBatchDeployment":
        if settings.get("logging_level", "info") not in ("warning", "info", "debug"):
            yield "settings.logging_level: one of warning, info, debug"
    elif document.kind == "pipelineComponentBatchDeployment":
        unknown = [name for name in settings if name not in _PIPELINE_SETTINGS]
        yield from (f"settings.{name}: unknown field" for name in unknown)


def _part(document: Document, part: str, schema: type[Any]) -> Iterator[str]:
    given = document.content.get(part, {})
    if not isinstance(given, dict):
        yield f"{part}: {given!r} is no mapping"
        return
    opened = _opened(schema, document.file.parent)
    unknown = [name for name in given if name not in opened.fields]
    yield from (f"{part}.{name}: unknown field" for name in unknown)
    try:
        opened.load({name: given[name] for name in given if name not in unknown})
    except ValidationError as error:
        yield f"{part}: {' '.join(str(error).split())}"


def _opened(schema: type[Any], base: Path) -> Any:
    with warnings.catch_warnings():  # of how azure-ai-ml itself uses its schemas
        warnings.simplefilter("ignore", DeprecationWarning)
        return schema(context={"base_path": base})


def _references(document: Document, known: set[tuple[str, str]]) -> Iterator[str]:
    content, here = document.content, document.file.parent
    for where, part in (("", content), ("task.", content.get("task") or {})):
        yield from _code(part, here, where)
        for family in ("environment", "model"):
            reference = part.get(family)
            if isinstance(reference, str):
                yield from _asset(where + family, family, reference, known)
    endpoint = content.get("endpoint_name")
    if endpoint:
        online = document.kind == "managedOnlineDeployment"
        family = "managedOnlineEndpoint" if online else "batchEndpoint"
        if (family, endpoint) not in known:
            yield f"endpoint_name: no {family} is called {endpoint!r}"
    for where, path in _paths(document):
        if not (here / path).exists():
            yield f"{where}: there is no {path}"


def _paths(document: Document) -> Iterator[tuple[str, str]]:
    content = document.content
    if document.kind == "model":
        yield "path", content["path"]
    if document.kind == "environment":
        build = content.get("build")
        if build:
            yield "build.path", build["path"]
            dockerfile = build.get("dockerfile_path", "Dockerfile")
            yield "build.dockerfile_path", f"{build['path']}/{dockerfile}"
        if isinstance(content.get("conda_file"), str):
            yield "conda_file", content["conda_file"]
    component = content.get("component")
    if isinstance(component, str) and not component.startswith("azureml:"):
        yield "component", component


def _asset(where: str, family: str, reference: str, known: set[tuple[str, str]]) -> Iterator[str]:
    if _BINDING.fullmatch(reference) or reference.startswith(_ELSEWHERE):
        return
    match = _ASSET.match(reference)
    if match is None:
        yield f"{where}: {reference!r} is not azureml:NAME@latest or azureml:NAME:VERSION"
    elif (family, match[1]) not in known:
        yield f"{where}: no {family} here is called {match[1]!r}"


def _code(part: Json, here: Path, where: str) -> Iterator[str]:
    configuration = part.get("code_configuration") or {}
    code = configuration.get("code", part.get("code"))
    script = configuration.get("scoring_script", part.get("entry_script"))
    if code is None:
        return
    folder = here / str(code)
    if not folder.is_dir():
        yield f"{where}code: there is no folder {code}"
        return
    if script is not None:
        yield from _entry_script(folder / str(script), f"{where}{script}")
    entry = part.get("entry")  # a Spark component's
    if isinstance(entry, dict) and not (folder / str(entry.get("file"))).is_file():
        yield f"{where}entry.file: there is no {entry.get('file')} below {code}"
    module = re.search(r"python -m ([\w.]+)", str(part.get("command", "")))
    if module and not _is_module(folder, module[1]):
        yield f"{where}command: there is no module {module[1]} below {code}"


def _is_module(folder: Path, name: str) -> bool:
    path = folder.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def _entry_script(script: Path, where: str) -> Iterator[str]:
    if not script.is_file():
        yield f"{where}: there is no such script"
        return
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        yield f"{where}: no Python: {error}"
        return
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
    yield from (
        f"{where}: it has no function {name}()" for name in ("init", "run") if name not in defined
    )


# -- bindings ----------------------------------------------------------------------------------


def _strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _strings(item, f"{where}[{place}]")


def _bindings(document: Document) -> Iterator[str]:
    """A component's: to its own inputs and outputs."""
    content = document.content
    used = set()
    for where, text in _strings(content):
        for binding in _BINDING.findall(text):
            side, _, name = binding.strip().partition(".")
            if side not in ("inputs", "outputs") or name not in (content.get(side) or {}):
                yield f"{where}: ${{{{{binding}}}}} leads nowhere"
            used.add((side, name))
    if not document.kind.endswith("Component"):
        return
    for side in ("inputs", "outputs"):
        for name in content.get(side) or {}:
            if (side, name) not in used:
                yield f"{side}.{name}: nothing uses it"


def _steps(document: Document) -> Iterator[str]:
    """A pipeline's: to its own inputs and outputs, and between its steps."""
    jobs: Json = document.content["jobs"]
    components: dict[str, Json] = {}
    for name, step in jobs.items():
        yield from (f"jobs.{name}.{key}: unknown field" for key in step if key not in _STEP)
        if str(step.get("component")).startswith("azureml:"):
            continue
        file = document.file.parent / str(step.get("component"))
        if not file.is_file():
            yield f"jobs.{name}.component: there is no {step.get('component')}"
            continue
        components[name] = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name, made in components.items():
        step = jobs[name]
        if step.get("type", made["type"]) != made["type"]:
            yield f"jobs.{name}.type: its component is a {made['type']}"
        for side in ("inputs", "outputs"):
            for given, text in (step.get(side) or {}).items():
                where = f"jobs.{name}.{side}.{given}"
                if given not in (made.get(side) or {}):
                    yield f"{where}: its component has none of that name"
                    continue
                if side == "inputs" and isinstance(text, Mapping):
                    yield from ports.asset(where, text, made[side][given])
                    continue
                yield from _end(document, components, where, str(text), made[side][given])
        for needed, kind in (made.get("inputs") or {}).items():
            optional = kind.get("optional") or "default" in kind
            if not optional and needed not in (step.get("inputs") or {}):
                yield f"jobs.{name}.inputs.{needed}: is missing"
    bound = set(re.findall(r"\$\{\{\s*parent\.outputs\.(\w+)\s*\}\}", str(jobs)))
    for name in document.content.get("outputs") or {}:
        if name not in bound:
            yield f"outputs.{name}: no step writes it"


def _end(
    document: Document, components: Mapping[str, Json], where: str, text: str, wanted: Json
) -> Iterator[str]:
    """Whether the other end of a step's binding is there, and of the type that is wanted."""
    match = _BINDING.fullmatch(text)
    if match is None:
        yield from values.literal(where, text, wanted)
        return
    parts = match[1].strip().split(".")
    found: Any = None
    if parts[0] == "parent" and len(parts) == 3 and parts[1] in ("inputs", "outputs"):
        found = (document.content.get(parts[1]) or {}).get(parts[2])
    elif parts[:2] == ["parent", "jobs"] and len(parts) == 5 and parts[3] == "outputs":
        found = (components.get(parts[2], {}).get("outputs") or {}).get(parts[4])
    if found is None:
        yield f"{where}: {text} leads nowhere"
    elif isinstance(found, dict) and found["type"] != wanted["type"]:  # else a value
        yield f"{where}: {text} is a {found['type']}, and a {wanted['type']} is wanted"
