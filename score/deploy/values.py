"""What Azure's schemas take and Azure, or this project's scripts, would not: values, one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from score.deploy.skus import lookup
from score.errors import AzureError, SettingError
from score.settings import PREFIX, Settings, names

Json = Mapping[str, Any]

# Where a whole number stands, and the least that it may be.
_LEAST = {
    "instance_count": 1,
    "resources.instance_count": 1,
    "max_concurrency_per_instance": 1,
    "mini_batch_size": 1,
    "mini_batch_error_threshold": -1,
    "retry_settings.max_retries": 0,
    "retry_settings.timeout": 1,
    "settings.max_concurrency_per_instance": 1,
    "settings.mini_batch_size": 1,
    "settings.error_threshold": -1,
    "settings.retry_settings.max_retries": 0,
    "settings.retry_settings.timeout": 1,
    "request_settings.max_concurrent_requests_per_instance": 1,
    "request_settings.request_timeout_ms": 1,
    "conf.spark.driver.cores": 1,
    "conf.spark.executor.cores": 1,
    "conf.spark.executor.instances": 1,
    "conf.spark.task.cpus": 1,
    **{
        f"{probe}.{name}": 1
        for probe in ("readiness_probe", "liveness_probe")
        for name in ("initial_delay", "period", "timeout", "success_threshold", "failure_threshold")
    },
}
# Azure's rule for endpoints and deployments (how-to-manage-quotas, "limits").
_NAMED = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
_NAMED_KINDS = ("Endpoint", "Deployment")
_SPARK = {
    *("spark.driver.cores", "spark.driver.memory", "spark.executor.cores", "spark.task.cpus"),
    *("spark.executor.memory", "spark.executor.memoryOverhead", "spark.executor.instances"),
}
_CONDA = {"name", "channels", "dependencies", "variables", "prefix"}
_TYPES: Mapping[str, Callable[[str], object]] = {"integer": int, "number": float}
_COPY = re.compile(r"^COPY (?!--)(\S+) \S+$", re.MULTILINE)


def problems(kind: str, content: Json, here: Path) -> Iterator[str]:
    """A sentence for each value that cannot be, in a file of a kind that lies in `here`."""
    yield from _numbers(content)
    yield from _variables(content)
    name = content.get("name")
    if kind.endswith(_NAMED_KINDS) and not _NAMED.fullmatch(str(name)):
        yield f"name: {name!r} is not 3 to 32 letters, digits and dashes, a letter first"
    if kind == "model":
        yield from _sizes(content)
    if kind == "modelBatchDeployment" and not str(content.get("compute")).startswith("azureml:"):
        yield f"compute: {content.get('compute')!r} is not azureml:NAME"
    if "instance_type" in content:
        yield from _size(str(content["instance_type"]))
    if kind == "sparkComponent":
        conf = content.get("conf") or {}
        yield from (f"conf.{key}: unknown here" for key in conf if key not in _SPARK)
    if kind.endswith("Component"):
        for port, given in (content.get("inputs") or {}).items():
            yield from _default(f"inputs.{port}", given)
    if kind == "pipelineJob":
        for port, given in (content.get("inputs") or {}).items():
            path = given.get("path") if isinstance(given, dict) else None
            if path and ":" not in path and not (here / path).exists():
                yield f"inputs.{port}.path: there is no {path}"
    if kind == "environment":
        yield from _environment(content, here)


def whole(where: str, value: object, least: int) -> int:
    """A value as the whole number that it must be. Raises AzureError, which begins with `where`."""
    try:
        number = int(str(value))
    except ValueError:
        raise AzureError(f"{where}: {value!r} is no whole number") from None
    if number < least:
        raise AzureError(f"{where}: {number} is less than {least}")
    return number


def literal(where: str, value: object, wanted: Json) -> Iterator[str]:
    """Whether a value that is given to an input can be one."""
    convert = _TYPES.get(str(wanted.get("type")))
    if convert:
        try:
            convert(str(value))
        except ValueError:
            yield f"{where}: {value!r} is no {wanted['type']}"
    if "enum" in wanted and value not in wanted["enum"]:
        yield f"{where}: {value!r} is none of {', '.join(map(str, wanted['enum']))}"


def _default(where: str, given: Any) -> Iterator[str]:
    if isinstance(given, dict) and "default" in given:
        yield from literal(f"{where}.default", given["default"], given)


def _numbers(content: Json) -> Iterator[str]:
    for path, least in _LEAST.items():
        value = _at(content, path)
        if value is None:
            continue
        try:
            whole(path, value, least)
        except AzureError as error:
            yield str(error)


def _at(content: Json, path: str) -> object:
    """`settings.retry_settings.timeout` → the value there, if any. A key may hold dots itself."""
    first, _, rest = path.partition(".")
    if path in content:
        return content[path]
    inner = content.get(first)
    return _at(inner, rest) if rest and isinstance(inner, dict) else None


def _variables(content: Json) -> Iterator[str]:
    for part in (content, content.get("settings"), content.get("task")):
        given = part.get("environment_variables") if isinstance(part, dict) else None
        for name, value in (given if isinstance(given, dict) else {}).items():
            where = f"environment_variables.{name}"
            setting = str(name).removeprefix(PREFIX).lower()
            if name == "WORKER_COUNT":
                if not str(value).isdecimal() or not int(value):
                    yield f"{where}: {value!r} is no number of processes"
            elif str(name).startswith(PREFIX) and setting not in names():
                yield f"{where}: there is no such setting"
            elif str(name).startswith(PREFIX):
                try:
                    Settings().replace({setting: str(value)})
                except SettingError as error:
                    yield f"environment_variables: {error}"


def _sizes(content: Json) -> Iterator[str]:
    tags, properties = (content.get(part) or {} for part in ("tags", "properties"))
    listed = {
        "tags.inference_compute_allow_list": tags.get("inference_compute_allow_list", "[]"),
        "properties.inference-recommended-sku": properties.get("inference-recommended-sku", ""),
    }
    for where, text in listed.items():
        for name in re.findall(r"[\w.-]+", str(text)):
            try:
                lookup(name)
            except AzureError as error:
                yield f"{where}: {error}"
    spec = str(properties.get("inference-min-sku-spec", "0|0|0|0"))
    if not re.fullmatch(r"\d+(\|\d+){3}", spec):
        yield (
            f"properties.inference-min-sku-spec: {spec!r} is not vCPUs|GPUs|GiB of memory|"
            "GiB of disk"
        )


def _size(name: str) -> Iterator[str]:
    try:
        sku = lookup(name)
    except AzureError as error:
        yield f"instance_type: {error}"
        return
    if sku.status == "retired":
        yield f"instance_type: Azure retired {name} on {sku.retires}"


def _environment(content: Json, here: Path) -> Iterator[str]:
    conda = content.get("conda_file")
    if isinstance(conda, str) and (here / conda).is_file():
        given = yaml.safe_load((here / conda).read_text(encoding="utf-8"))
        unknown = set(given) - _CONDA if isinstance(given, dict) else {"no mapping"}
        yield from (f"conda_file: {conda}: {key}: unknown field" for key in sorted(unknown))
    build = content.get("build")
    if not isinstance(build, dict) or "path" not in build:
        return
    folder = here / str(build["path"])
    file = folder / str(build.get("dockerfile_path", "Dockerfile"))
    for source in _COPY.findall(file.read_text(encoding="utf-8")) if file.is_file() else ():
        if not (folder / source).exists():
            yield f"build.path: {file.name}: COPY {source}: there is no such file"
