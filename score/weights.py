"""The tensors of a model folder: safetensors files, checked before they are read.

What a file says of itself is compared with what the model needs while it is still only a header; a
tensor is read when it is taken, so that no second copy of a model is ever in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from score.architecture import Shape
from score.errors import ModelError

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FLOATS = ("F64", "F32", "F16", "BF16")
_LFS_POINTER = b"version https://git-lfs"


class Weights:
    """Tensors by name, in one safetensors file or several."""

    def __init__(self, folder: Path, files: Mapping[str, Path]) -> None:
        """`files`: where each tensor is said to be."""
        self._folder = folder
        self._files = dict(files)

    @classmethod
    def open(cls, folder: Path) -> Weights:
        """The weights in `folder`. Raises ModelError for files that are none, or not whole."""
        if (folder / FILE).is_file():
            return cls(folder, dict.fromkeys(_names(folder / FILE), folder / FILE))
        if (folder / INDEX).is_file():
            return cls(folder, _indexed(folder))
        raise ModelError(f"no {FILE} in {folder}, nor an {INDEX}")

    def names(self) -> list[str]:
        """The tensors there are."""
        return list(self._files)

    def check(self, wanted: Mapping[str, Shape]) -> None:
        """Raises ModelError unless each tensor wanted is there, in its shape, and a float.

        Only headers are read. Tensors that nobody wants are nobody's business.
        """
        missing = [name for name in wanted if name not in self._files]
        if missing:
            raise ModelError(
                f"{self._folder} lacks {len(missing)} of the tensors that its config.json needs, "
                f"such as {missing[0]}"
            )
        for file, names in self._by_file(wanted).items():
            with _opened(file) as tensors:
                for name in names:
                    header = tensors.get_slice(name)
                    shape, kind = tuple(header.get_shape()), header.get_dtype()
                    if shape != wanted[name]:
                        raise ModelError(
                            f"{file}: {name} is {_shown(shape)}; "
                            f"config.json wants {_shown(wanted[name])}"
                        )
                    if kind not in _FLOATS:
                        raise ModelError(f"{file}: {name} is {kind}, not {', '.join(_FLOATS)}")

    def take(self, name: str, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, read now; in its own precision where `dtype` is None. Raises ModelError."""
        if name not in self._files:
            raise ModelError(f"{self._folder} has no tensor {name}")
        with _opened(self._files[name]) as tensors:
            tensor: Tensor = tensors.get_tensor(name)
            return tensor.to(device, dtype or tensor.dtype)

    def _by_file(self, names: Mapping[str, Shape]) -> dict[Path, list[str]]:
        grouped: dict[Path, list[str]] = {}
        for name in names:
            grouped.setdefault(self._files[name], []).append(name)
        return grouped


def _indexed(folder: Path) -> dict[str, Path]:
    """What an index says: tensor → file. The files must lie beside it, and hold what it says."""
    try:
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): str(file) for name, file in places.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read {folder / INDEX}: {error!r}") from error
    held: dict[str, set[str]] = {}
    for file in dict.fromkeys(files.values()):
        if Path(file).name != file or file in ("", ".", ".."):
            raise ModelError(f"{folder / INDEX} names a file outside its folder: {file[:200]!r}")
        if not (folder / file).is_file():
            raise ModelError(f"{folder} lacks {file}, which its index names: half a download?")
        held[file] = set(_names(folder / file))
    for name, file in files.items():
        if name not in held[file]:
            raise ModelError(f"{folder / file} lacks {name}, which the index says it holds")
    return {name: folder / file for name, file in files.items()}


def _names(file: Path) -> list[str]:
    with _opened(file) as tensors:
        return list(tensors.keys())


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file, whose own complaints become ours."""
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is no whole safetensors file: {_reason(file, error)}") from error


def _reason(file: Path, error: Exception) -> str:
    with file.open("rb") as stream:
        head = stream.read(len(_LFS_POINTER))
    if head == _LFS_POINTER:
        return "it is a Git LFS pointer; run `git lfs pull`"
    return f"{error}; half a download?"


def _shown(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a scalar"
