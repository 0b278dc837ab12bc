"""Spark: the properties of a job, whether they fit each other, and the files that it ships.

Source: learn.microsoft.com/azure/machine-learning/reference-yaml-job-spark, "Attributes of the
`conf` key". An executor needs at least `spark.task.cpus` cores to run a task (Spark's
configuration page).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from score.deploy.rules.documents import Document
from score.deploy.rules.notes import Note
from score.deploy.rules.parts import parts
from score.deploy.values import at, mapping, whole
from score.errors import AzureError
from score.type_aliases import Json
from score.wording.suggestions import nearest

# The names of azure-ai-ml for some properties.
_SHORT = {
    "driver_cores": "spark.driver.cores",
    "driver_memory": "spark.driver.memory",
    "executor_cores": "spark.executor.cores",
    "executor_memory": "spark.executor.memory",
    "executor_instances": "spark.executor.instances",
    "dynamic_allocation_enabled": "spark.dynamicAllocation.enabled",
    "dynamic_allocation_min_executors": "spark.dynamicAllocation.minExecutors",
    "dynamic_allocation_max_executors": "spark.dynamicAllocation.maxExecutors",
}
_DYNAMIC = "spark.dynamicAllocation."
_LEAST, _MOST = _DYNAMIC + "minExecutors", _DYNAMIC + "maxExecutors"
_WHOLE = {
    "spark.driver.cores": 1,
    "spark.executor.cores": 1,
    "spark.executor.instances": 1,
    "spark.task.cpus": 1,
    _LEAST: 0,
    _MOST: 1,
    _DYNAMIC + "initialExecutors": 0,
}
_MEMORY = {
    *("spark.driver.memory", "spark.executor.memory", "spark.driver.memoryOverhead"),
    *("spark.executor.memoryOverhead", "spark.executor.pyspark.memory"),
}
_SIZE = re.compile(r"[1-9]\d*\s*[kmgtp]?b?", re.IGNORECASE)
_KNOWN = {*_SHORT.values(), *_WHOLE, *_MEMORY}
_SHIPPED = ("py_files", "jars", "files", "archives")
# As strings, since YAML reads 3.10 as 3.1. The versions that Azure has documented for Spark on
# Synapse and in Azure ML; only a workspace knows which of them it still supports.
_RUNTIMES = ("3.1", "3.2", "3.3", "3.4", "3.5")
_NEAR = 0.93  # difflib ratio: one letter of the name differs, not a word


def problems(document: Document) -> Iterator[str]:
    """What is wrong with the properties of a Spark component, job or step."""
    for where, part in parts(document):
        runtime = str(at(part, "resources.runtime_version") or _RUNTIMES[-1])
        if "${{" not in runtime and runtime not in _RUNTIMES:
            known = ", ".join(_RUNTIMES)
            yield f"{where}resources.runtime_version: must be one of {known}, not {runtime!r}"
        if isinstance(part.get("conf"), dict):
            conf = {_SHORT.get(str(name), str(name)): value for name, value in part["conf"].items()}
            yield from _names(f"{where}conf", conf)
            yield from _values(f"{where}conf", conf)
            yield from _executors(f"{where}conf", conf)
            if "entry" in part:
                missing = (f"{where}conf.{name}: is missing" for name in _missing(conf))
                # The job that runs a component may add properties.
                yield from missing if document.kind != "sparkComponent" else map(Note, missing)
    if document.kind == "sparkComponent":
        yield from _shipped(document)


def _shipped(document: Document) -> Iterator[str]:
    """Files that a component names and that do not exist.

    Paths are relative to the folder `code`, to which azure-ai-ml adds what `additional_includes`
    names. It makes `x.zip` itself where there is a folder `x`.
    """
    content, here = document.content, document.here
    included = set()
    for name in _listed(content, "additional_includes"):
        path = here / name
        zipped = path.suffix == ".zip" and os.path.isdir(path.with_suffix(""))
        if not os.path.exists(path) and not zipped:
            yield f"additional_includes: there is no {name}"
        included.add(path.name)
    code = here / str(content.get("code", "."))
    for field in _SHIPPED:
        for name in _listed(content, field):
            if "://" not in name and name not in included and not os.path.exists(code / name):
                yield f"{field}: there is no {name} in code, nor in additional_includes"


def _listed(content: Json, field: str) -> list[str]:
    names = content.get(field)
    return [str(name) for name in names] if isinstance(names, list) else []


def _names(where: str, conf: Json) -> Iterator[str]:
    """Misspelt properties: Spark has hundreds, and silently accepts unknown ones."""
    for name in conf:
        near = nearest(name, _KNOWN, cutoff=_NEAR)
        if name in _KNOWN or (name.startswith("spark.") and not near):
            continue
        hint = f"; did you mean {near}?" if near else "; Spark's begin with spark."
        yield f"{where}.{name}: there is no such property{hint}"


def _values(where: str, conf: Json) -> Iterator[str]:
    for name, value in conf.items():
        if "${{" in str(value):
            continue
        if name in _WHOLE:
            try:
                whole(f"{where}.{name}", value, _WHOLE[name])
            except AzureError as error:
                yield str(error)
        elif name in _MEMORY and not _SIZE.fullmatch(str(value)):
            yield f"{where}.{name}: {value!r} is no amount of memory, as 8g"
    cores, task = _number(conf, "spark.executor.cores"), _number(conf, "spark.task.cpus") or 1
    if cores is not None and cores < task:
        yield (
            f"{where}.spark.executor.cores: {cores} a machine, and a task wants "
            f"spark.task.cpus: {task}"
        )


def _executors(where: str, conf: Json) -> Iterator[str]:
    enabled = conf.get(_DYNAMIC + "enabled", False)
    if str(enabled).lower() not in ("true", "false"):
        yield f"{where}.{_DYNAMIC}enabled: {enabled!r} is neither true nor false"
    least, most = _number(conf, _LEAST), _number(conf, _MOST)
    if least is not None and most is not None and least > most:
        yield f"{where}.{_LEAST}: {least} is more than {_MOST}, {most}"


def _missing(conf: Json) -> list[str]:
    """The missing ones of the properties that set the number of executors."""
    dynamic = str(conf.get(_DYNAMIC + "enabled")).lower() == "true"
    wanted = (_LEAST, _MOST) if dynamic else ("spark.executor.instances",)
    return [name for name in wanted if name not in conf]


def _number(conf: Json, name: str) -> int | None:
    value = str(mapping(conf).get(name, ""))
    return int(value) if value.isdecimal() else None
