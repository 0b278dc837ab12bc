"""Command lines: verbs and flags of this project, and arguments of Azure's batch runner.

Known flags are the string literals in the code that the document uploads, which is parsed but not
run: flags, and the names from which flags are made.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from score.deploy.rules.documents import Document
from score.deploy.rules.parts import parts
from score.deploy.rules.spelling import misspelt
from score.deploy.values import THREE_DAYS, at, whole
from score.errors import AzureError
from score.settings import names
from score.type_aliases import Json

_RUNS = re.compile(r"\bpython3? -m score +([\w-]+)([^&|;]*)")
_FLAG = re.compile(r"(?<!\S)--([\w-]+)(?:[ =]+(\S+))?")
# learn.microsoft.com/azure/machine-learning/reference-yaml-job-parallel, "Predefined arguments":
# the least and the most; None for arguments that are no integers.
_PREDEFINED: dict[str, tuple[int, int] | None] = {
    "error_threshold": (-1, 2**31 - 1),
    "allowed_failed_percent": (0, 100),
    "task_overhead_timeout": (1, THREE_DAYS),
    "progress_update_timeout": (1, THREE_DAYS),
    "first_task_creation_timeout": (1, THREE_DAYS),
    "resource_monitor_interval": (0, 2**31 - 1),
    "copy_logs_to_parent": None,
    "push_metrics_to_parent": None,
    "metrics_name_prefix": None,
}


def problems(document: Document) -> Iterator[str]:
    """Unknown verbs and flags, and arguments of the runner that are out of range."""
    for where, part in parts(document):
        code = at(part, "code_configuration.code") or part.get("code")
        package = document.here / str(code) / "score"
        if code is not None and os.path.isdir(package):
            yield from _command(f"{where}command", part, package)
            yield from _script(f"{where}program_arguments", part, "entry_script", package)
            yield from _script(f"{where}args", part, "entry.file", package)
        yield from _shipped(f"{where}args", part, document.here)
        yield from _predefined(f"{where}program_arguments", str(part.get("program_arguments", "")))


def _command(where: str, part: Json, package: Path) -> Iterator[str]:
    for verb, words in _RUNS.findall(str(part.get("command", ""))):
        file = package / "cli" / f"{verb}.py"
        if not file.is_file():
            verbs = [one.stem for one in package.glob("cli/[a-z]*.py")]
            near = misspelt(verb, verbs)
            yield f"{where}: score has no {verb!r}" + (f"; did you mean {near}?" if near else "")
            continue
        yield from _flags(where, words, (file, package / "cli" / "arguments.py"))


def _script(where: str, part: Json, field: str, package: Path) -> Iterator[str]:
    """The arguments of an entry script of this project."""
    script = str(at(part, field))
    file = package.parent / script
    if script.startswith("score/") and file.is_file():
        words = str(part.get(where.rpartition(".")[2], ""))
        yield from _flags(where, words, (file,))


def _shipped(where: str, part: Json, here: Path) -> Iterator[str]:
    """The arguments of a Spark job that ships this project's package as `score.zip`."""
    for name in part.get("additional_includes") or ():
        package = here / str(name).removesuffix(".zip")
        if package.name == "score" and (package / "spark.py").is_file():
            yield from _flags(where, str(part.get("args", "")), (package / "spark.py",))


def _flags(where: str, words: str, files: Sequence[Path]) -> Iterator[str]:
    known = {name for file in files for name in _texts(file)} | set(_PREDEFINED)
    for flag, _ in _FLAG.findall(words):
        if flag not in known and flag.replace("-", "_") not in names():
            near = misspelt(flag, known)
            yield f"{where}: there is no --{flag}" + (f"; did you mean --{near}?" if near else "")


def _texts(file: Path) -> Iterator[str]:
    """The words among a Python file's string literals, without the dashes of flags."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"(?:--)?[\w-]+", text):
            yield text.removeprefix("--")


def _predefined(where: str, words: str) -> Iterator[str]:
    for flag, value in _FLAG.findall(words):
        bounds = _PREDEFINED.get(flag)
        if bounds and "${{" not in value:
            try:
                whole(f"{where}: --{flag}", value, *bounds)
            except AzureError as error:
                yield str(error)
