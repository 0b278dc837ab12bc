"""Runs a Dockerfile's steps in a virtual environment, without a Docker engine.

The installed packages, environment variables and command are those of the image. Its operating
system, user and paths are not: they are this machine's own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from score.errors import AzureError
from score.storage.outputs import is_empty

_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}")
# Python's version in the name of an image: python:3.11-slim, …/minimal-py311-inference.
_PYTHON = re.compile(r"python:(\d+)\.(\d+)|[-/]py(\d)(\d+)\b")
_IGNORED = ("EXPOSE", "HEALTHCHECK", "USER", "WORKDIR")  # without effect in an environment


@dataclass
class Image:
    """A virtual environment built from a Dockerfile."""

    folder: Path  # the virtual environment
    variables: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The environment variables for a process in it."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **self.variables, "PATH": path, "VIRTUAL_ENV": str(self.folder)}


def build(
    context: Path,
    folder: Path,
    arguments: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Image:
    """Runs the steps of `context/Dockerfile` in a new virtual environment.

    `arguments`: build arguments, as of `docker build --build-arg`. `say`: called with each step.
    Raises AzureError for a step that fails, or that only a Docker engine can run.
    """
    context, folder = (
        context.resolve(),
        folder.resolve(),
    )  # relative to the caller; steps run in `context`
    image, overrides = Image(folder), dict(arguments or {})
    values: dict[str, str] = {}
    for name, text in _instructions(context / "Dockerfile"):
        say(f"{name} {text}")
        if name == "FROM":
            _start(text, folder)
        elif name == "ARG":
            key, _, default = text.partition("=")
            values[key] = overrides.get(key, "".join(shlex.split(default)[:1]))
        elif name == "ENV":
            image.variables |= _pairs(text)
        elif name == "COPY":
            source, target = text.split()
            values[target] = str(context / source)
        elif name == "CMD":
            image.command = _words(text, context / "Dockerfile")
        elif name == "RUN":
            _run(text, image, context, values)
        elif name not in _IGNORED:
            raise AzureError(f"{context / 'Dockerfile'}: {name} is not known here")
    return image


def what_runs(file: Path) -> tuple[dict[str, str], list[str]]:
    """The environment variables and the command of a Dockerfile's image, without building it.

    Raises AzureError for a file that cannot be read, and for a command that is no JSON list.
    """
    variables: dict[str, str] = {}
    command: list[str] = []
    for name, text in _instructions(file):
        if name == "ENV":
            variables |= _pairs(text)
        elif name == "CMD":
            command = _words(text, file)
    return variables, command


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(text))


def _words(text: str, file: Path) -> list[str]:
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list):
        raise AzureError(f"{file}: CMD {text} is no JSON list of words")
    return [str(word) for word in words]


def _instructions(file: Path) -> Iterator[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise AzureError(f"{file} cannot be read: {error}") from error
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name:
            yield name, " ".join(rest.split())


def _start(base: str, folder: Path) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    match = _PYTHON.search(base)
    numbers = [number for number in match.groups() if number] if match else []
    if ".".join(numbers) != here:
        raise AzureError(f"the image is made from {base}, and this is Python {here}")
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and not is_empty(folder):
        raise AzureError(f"{folder} holds something else than a virtual environment")
    venv.create(folder, clear=True, with_pip=True)


def _run(step: str, image: Image, context: Path, values: Mapping[str, str]) -> None:
    words = shlex.split(_VARIABLE.sub(lambda match: values[match[1] or match[2]], step))
    if words[0] == "useradd":  # steps run as the current user
        return
    if words[:2] != ["pip", "install"]:
        raise AzureError(f"cannot be done here: RUN {step}")
    files = {target.rstrip("/"): source for target, source in values.items() if "/" in target}
    # pip's cache would only enlarge an image; here the next environment takes packages from it.
    words = [_copied(word, files) for word in words[1:] if word != "--no-cache-dir"]
    command = [str(image.folder / "bin/python"), "-m", "pip", "--quiet", *words]
    done = subprocess.run(command, cwd=context, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise AzureError(f"RUN {step} failed: {done.stderr.strip()[-2000:]}")


def _copied(word: str, files: Mapping[str, str]) -> str:
    """A path in the image → the file of the build context that was copied there."""
    for target, source in files.items():
        if word in (target, f"{target}/{Path(source).name}"):
            return source
    return word


def size(folder: Path) -> int:
    """Bytes that a folder takes on disk."""
    done = subprocess.run(  # noqa: S603
        [shutil.which("du") or "du", "-sb", str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0])
