"""Runs a parallel component's YAML on this machine: a step of a pipeline over many files."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from score.deploy.simulate import definition
from score.deploy.simulate.folders import input_files, new_output
from score.deploy.simulate.machine import Machine
from score.deploy.simulate.runner import Job, Report, run
from score.deploy.values import BINDING
from score.errors import AzureError
from score.type_aliases import Json

_LITERALS = ("string", "integer", "number", "boolean")


def parallel(
    file: Path,
    inputs: Mapping[str, str],
    output: Path,
    *,
    nodes: int | None = None,
    machine: Machine | None = None,
) -> Report:
    """Runs a parallel component; each of its outputs is written to `output/NAME`.

    `inputs`: paths or values of its inputs, by name. `nodes`: replaces the number in the YAML.
    Raises AzureError as `batch` does, and for inputs that are missing or that it does not have.
    """
    content = definition.read(file, "parallelComponent")
    ends = _ends(content, inputs, output, file)

    def bound(text: str) -> str:
        """The text with each `${{…}}` replaced."""
        return BINDING.sub(lambda match: _value(match, ends, file), text)

    task = definition.part(content, "task", file)
    retry = definition.part(content, "retry_settings", file)
    resources = definition.part(content, "resources", file)
    append = task.get("append_row_to")
    number = definition.number
    processes = number(content, "max_concurrency_per_instance", 1, 1, file)
    arguments = [bound(word) for word in shlex.split(task.get("program_arguments", ""))]
    job = Job(
        script=definition.script(task, file, None),
        arguments=tuple(arguments),
        environment=definition.variables(content, file),
        nodes=nodes or number(resources, "instance_count", 1, 1, file),
        processes=processes,
        mini_batch=number(content, "mini_batch_size", 1, 1, file),
        retries=number(retry, "max_retries", 2, 0, file),
        timeout=number(retry, "timeout", 60, 1, file),
        error_threshold=_error_threshold(arguments, content, file),
        batch_error_threshold=number(content, "mini_batch_error_threshold", -1, -1, file),
        append_to=Path(bound(append)) if append else None,
        prefix=(machine or Machine()).command(processes, ()),
        folder=definition.code(task, file),
    )
    return run(job, input_files(Path(bound(content["input_data"]))))


def _ends(content: Json, inputs: Mapping[str, str], output: Path, file: Path) -> dict[str, str]:
    """`inputs.NAME` and `outputs.NAME` → what `${{…}}` of that name stands for."""
    declared: Json = content.get("inputs") or {}
    optional = {name for name, kind in declared.items() if kind.get("optional")}
    values = {name: str(kind["default"]) for name, kind in declared.items() if "default" in kind}
    values |= inputs
    _check_inputs(set(values), optional, set(declared), file)
    folder = new_output(output)
    for name, value in values.items():  # processes start in another folder
        if declared[name]["type"] not in _LITERALS:
            values[name] = str(Path(value).resolve())
    ends = {f"inputs.{name}": value for name, value in values.items()}
    for name, kind in (content.get("outputs") or {}).items():
        ends[f"outputs.{name}"] = str(folder / name)
        if kind["type"] == "uri_folder":
            (folder / name).mkdir(parents=True)
    return ends


def _value(match: re.Match[str], ends: Mapping[str, str], file: Path) -> str:
    name = match[1].strip()
    if name not in ends:
        raise AzureError(f"{file}: {match[0]} leads nowhere")
    return ends[name]


def _check_inputs(names: set[str], optional: set[str], declared: set[str], file: Path) -> None:
    for name in sorted(declared - optional - names):
        raise AzureError(f"{file}: input {name!r} is missing")
    for name in sorted(names - declared):
        raise AzureError(f"{file} has no input {name!r}, only: {', '.join(sorted(declared))}")


def _error_threshold(arguments: Sequence[str], content: Json, file: Path) -> int:
    """Azure's runner takes it from the program's arguments first, then from the component."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--error_threshold", default=content.get("error_threshold", -1))
    options = vars(parser.parse_known_args(arguments)[0])
    return definition.number(options, "error_threshold", -1, -1, file)
