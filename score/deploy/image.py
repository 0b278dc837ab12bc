"""A Dockerfile's steps in a virtual environment: what an image would hold, without a Docker engine.

Not the image: its base system, its user and its paths are this machine's own. What pip installs,
what the environment variables say and what the command starts are the Dockerfile's.
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
_OF_THE_SYSTEM = ("EXPOSE", "HEALTHCHECK", "USER", "WORKDIR")  # nothing to do for these


@dataclass
class Image:
    """What came of a Dockerfile."""

    folder: Path  # the virtual environment
    variables: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """For a process in it."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **self.variables, "PATH": path, "VIRTUAL_ENV": str(self.folder)}


def build(
    context: Path,
    folder: Path,
    arguments: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Image:
    """Runs the steps of `context/Dockerfile` in a new virtual environment.

    `arguments`: as `docker build --build-arg` takes them. Raises AzureError for a step that fails,
    or that is of a kind that cannot be done here.
    """
    context, folder = context.resolve(), folder.resolve()  # steps run in the former
    image, given = Image(folder), dict(arguments or {})
    values: dict[str, str] = {}
    for name, text in _instructions(context / "Dockerfile"):
        say(f"{name} {text}")
        if name == "FROM":
            _start(text, folder)
        elif name == "ARG":
            key, _, default = text.partition("=")
            values[key] = given.get(key, "".join(shlex.split(default)[:1]))
        elif name == "ENV":
            image.variables |= dict(pair.split("=", 1) for pair in shlex.split(text))
        elif name == "COPY":
            source, target = text.split()
            values[target] = str(context / source)
        elif name == "CMD":
            image.command = json.loads(text)
        elif name == "RUN":
            _run(text, image, context, values)
        elif name not in _OF_THE_SYSTEM:
            raise AzureError(f"{context / 'Dockerfile'}: {name} is not known here")
    return image


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
    found = _PYTHON.search(base)
    numbers = [number for number in found.groups() if number] if found else []
    if ".".join(numbers) != here:
        raise AzureError(f"the image is made from {base}, and this is Python {here}")
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and not is_empty(folder):
        raise AzureError(f"{folder} holds something else than a virtual environment")
    venv.create(folder, clear=True, with_pip=True)


def _run(step: str, image: Image, context: Path, values: Mapping[str, str]) -> None:
    words = shlex.split(_VARIABLE.sub(lambda match: values[match[1] or match[2]], step))
    if words[0] == "useradd":  # whoever runs this is the user
        return
    if words[:2] != ["pip", "install"]:
        raise AzureError(f"cannot be done here: RUN {step}")
    files = {target.rstrip("/"): source for target, source in values.items() if "/" in target}
    words = [_copied(word, files) for word in words[1:]]
    command = [str(image.folder / "bin/python"), "-m", "pip", "--quiet", *words]
    done = subprocess.run(command, cwd=context, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise AzureError(f"RUN {step} failed: {done.stderr.strip()[-2000:]}")


def _copied(word: str, files: Mapping[str, str]) -> str:
    """A path in the image → the file that was copied there."""
    for target, source in files.items():
        if word in (target, f"{target}/{Path(source).name}"):
            return source
    return word


def size(folder: Path) -> int:
    """Bytes on disk."""
    done = subprocess.run(  # noqa: S603
        [shutil.which("du") or "du", "-sb", str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0])
