"""A model folder as a typed value: where it is, and what its JSON files say.

Knows files and JSON; knows nothing of torch, pictures or words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score.architecture import Architecture
from score.errors import ModelError

Json = Mapping[str, Any]

EMBEDDED = Path(__file__).resolve().parent.parent / "model"
"""The model that ships with the project."""

LFS_POINTER = "a Git LFS pointer; run `git lfs pull`"
"""What to say of a file for which `is_lfs_pointer` is true."""

_LFS_HEAD = b"version https://git-lfs"
_DECISIVE = {".safetensors", ".json", ".txt", ".model"}
_PROBES = "probes.json"
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

        The last is what Azure ML mounts (`AZUREML_MODEL_DIR`). Raises ModelError.
        """
        folder = _locate(Path(path))
        return cls(
            path=folder,
            architecture=_architecture(folder / "config.json"),
            preprocessor=_preprocessor(folder),
        )

    def fingerprint(self) -> str:
        """12 hexadecimal digits that tell models apart, whatever their folders are called.

        Of the names and contents of all that decides vectors: weights, config, tokenizer and
        preprocessor; not of probes, nor of what was made of the weights, as `int8/` is. Reads every
        file. Raises ModelError.
        """
        digest = hashlib.sha256()
        try:
            for file in sorted(self.path.iterdir()):
                if file.suffix in _DECISIVE and file.name != _PROBES:
                    with file.open("rb") as stream:
                        content = hashlib.file_digest(stream, "sha256").digest()
                    digest.update(hashlib.sha256(file.name.encode()).digest() + content)
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error}") from error
        return digest.hexdigest()[:12]


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
