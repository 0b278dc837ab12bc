"""What an environment is built from: a conda file, or a Dockerfile and the files that it copies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from score.deploy.rules import packages
from score.deploy.values import at
from score.type_aliases import Json

_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?", re.MULTILINE | re.IGNORECASE)
_COPY = re.compile(r"^(?:COPY|ADD) +(?!--)(?!https?:)([^\s\[$*]+) +\S+$", re.MULTILINE)
_INSTALL = re.compile(r"pip3? install ([^&|;\n]*)")
_COMMENTS = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
_CPU_TORCH = re.compile(r"whl/cpu\b|\+cpu\b")
_CUDA_TORCH = re.compile(r"whl/cu\d+|\+cu\d+|cuda|NVIDIA_VISIBLE_DEVICES")
# Images without Python packages of their own. Of any other image the packages are unknown.
_PLAIN = re.compile(
    r"(?:docker\.io/)?(?:library/)?(?:python|ubuntu|debian|nvidia/cuda|continuumio/miniconda3)\b"
    r"|mcr\.microsoft\.com/(?:mirror|devcontainers|azurelinux|cbl-mariner|azureml/(?:openmpi|base))"
)
# Azure's minimal images for inference, which contain its inference server:
# https://learn.microsoft.com/azure/machine-learning/concept-prebuilt-docker-images-inference
_SERVING = re.compile(r"mcr\.microsoft\.com/azureml/(?:curated/)?minimal-[\w.-]*inference\b")


@dataclass(frozen=True)
class EnvironmentDefinition:
    """An environment's definition, and the folder to which its paths are relative."""

    environment: Json
    here: Path

    @property
    def folder(self) -> Path:
        """The build context; `here` where nothing is built."""
        return self.here / str(at(self.environment, "build.path") or "")

    @property
    def dockerfile(self) -> Path | None:
        """The Dockerfile, or None where there is no such file."""
        if not isinstance(at(self.environment, "build.path"), str):
            return None
        file = self.folder / str(at(self.environment, "build.dockerfile_path") or "Dockerfile")
        return file if os.path.isfile(file) else None

    def conda(self) -> object:
        """The content of the conda file, or the inline definition; None without the file."""
        conda = self.environment.get("conda_file")
        return _yaml(self.here / conda) if isinstance(conda, str) else conda

    def images(self) -> Iterator[str]:
        """The base images of a Dockerfile."""
        bases = _FROM.findall(self._text())
        stages = {stage.lower() for _, stage in bases if stage} | {"scratch"}
        yield from (image for image, _ in bases if image.lower() not in stages)

    def copied(self) -> list[str]:
        """The files and folders that a Dockerfile copies from the build context."""
        return _COPY.findall(self._text())

    def requirements(self) -> Iterator[tuple[str, Sequence[str]]]:
        """File name → pip requirements, of each file that a Dockerfile copies."""
        for name in self.copied():
            file = self.folder / name
            if os.path.isfile(file) and file.suffix == ".txt":
                yield file.name, _read(file).splitlines()
            elif os.path.isfile(file) and file.suffix in (".yml", ".yaml"):
                yield file.name, packages.conda(_yaml(file))[1]

    def packages(self) -> set[str] | None:
        """The packages that are installed; None where the files do not show all of them."""
        if "conda_file" in self.environment:
            content = self.conda()
            own, pip = packages.conda(content)
            hidden = not isinstance(content, dict) or any(packages.included(pip, self.here))
            return None if hidden else packages.names([*own, *pip])
        images = [*self.images()]
        if not self.dockerfile or not all(_PLAIN.match(i) or _SERVING.match(i) for i in images):
            return None
        serves = any(_SERVING.match(image) for image in images)
        installed = {"azureml-inference-server-http"} if serves else set()
        for _, lines in self.requirements():
            installed |= packages.names(lines)
        for words in _INSTALL.findall(self._text()):
            installed |= packages.names(words.split())
        return installed

    def device(self) -> Literal["cpu", "cuda"] | None:
        """The device that PyTorch is built for; None where the files do not show it."""
        texts = [str(self.environment.get("image", "")), str(self.conda()), self._text()]
        texts += [line for _, lines in self.requirements() for line in lines]
        everything = "\n".join(texts)
        if _CPU_TORCH.search(everything):
            return "cpu"
        return "cuda" if _CUDA_TORCH.search(everything) else None

    def _text(self) -> str:
        """The Dockerfile without its comments."""
        return _COMMENTS.sub("", _read(self.dockerfile)) if self.dockerfile else ""


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _yaml(file: Path) -> object:
    """A file's content; an error message where it is no YAML, None where there is no file."""
    if not os.path.isfile(file):
        return None
    try:
        return yaml.safe_load(file.read_bytes())
    except Exception as error:  # PyYAML's constructors raise whatever int(), float() and date() do
        return f"no YAML: {error}"
