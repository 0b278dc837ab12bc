"""A model folder as a typed value: where it is, and what its JSON files say.

Knows files and JSON; knows nothing of torch, pictures or words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score import registry
from score.architecture import Architecture
from score.errors import ModelError

Json = Mapping[str, Any]

EMBEDDED = Path(__file__).resolve().parent.parent / "model"
"""The model that ships with the project."""

LFS_POINTER = "a Git LFS pointer; run `git lfs pull`"
"""What to say of a file for which `is_lfs_pointer` is true."""

_LFS_HEAD = b"version https://git-lfs"
_PACKAGE_DATA = "model"  # what a package's MLmodel names as `data`


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A CLIP checkpoint in the transformers layout.

    path: the folder that holds `config.json`, `model.safetensors` and the tokenizer.
    architecture: what its `config.json` declares.
    preprocessor: how pictures become pixels, from `preprocessor_config.json`.
    """

    path: Path
    architecture: Architecture
    preprocessor: Json

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """The checkpoint at `path`: a plain transformers folder, a package, or their one parent.

        The last is what Azure ML mounts (`AZUREML_MODEL_DIR`). A name of MLflow's, such as
        `models:/clip/1`, is downloaded. Raises ModelError.
        """
        folder = _locate(registry.download(str(path)) if registry.is_uri(path) else Path(path))
        return cls(
            path=folder,
            architecture=_architecture(folder / "config.json"),
            preprocessor=_preprocessor(folder),
        )


def _locate(path: Path) -> Path:
    if not path.is_dir():
        raise ModelError(f"no model folder at {path}")
    children = sorted(child for child in path.iterdir() if child.is_dir())
    for candidates in (
        [path],
        [path / _PACKAGE_DATA],
        children,
        [c / _PACKAGE_DATA for c in children],
    ):
        found = [candidate for candidate in candidates if (candidate / "config.json").is_file()]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(candidate.name for candidate in found)
            raise ModelError(f"several models in {path} ({listed}): name one of them")
    raise ModelError(f"no config.json in {path}, nor in {path / _PACKAGE_DATA}")


def _architecture(file: Path) -> Architecture:
    config = read_json(file)
    try:
        return Architecture.from_config(config)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error


def _preprocessor(folder: Path) -> Json:
    """Where transformers looks: what a whole processor was saved as counts more than its part."""
    combined = folder / "processor_config.json"
    if combined.is_file():
        nested = read_json(combined).get("image_processor")
        if isinstance(nested, dict):
            return nested
    own = folder / "preprocessor_config.json"
    if own.is_file():
        return read_json(own)
    raise ModelError(f"no preprocessor_config.json in {folder}")


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what Git leaves in the place of one that was not downloaded."""
    with file.open("rb") as stream:
        return stream.read(len(_LFS_HEAD)) == _LFS_HEAD


def read_json(file: Path) -> Json:
    """The JSON object in a file. Raises ModelError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a JSON object")
    return content
