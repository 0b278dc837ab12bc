"""The tensors of a model folder: safetensors files, checked before they are read.

What a file says of itself is compared with what the model needs while it is still only a header; a
tensor is read when it is taken, so that no second copy of a model is ever in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from score.architecture import Shape
from score.errors import ModelError
from score.folder import read_json

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
        self._opened = {file: _open(file) for file in dict.fromkeys(files.values())}

    @classmethod
    def open(cls, folder: Path) -> Weights:
        """The weights in `folder`. Raises ModelError for files that are none, or not whole."""
        if (folder / FILE).is_file():
            return cls.of(folder / FILE)
        if (folder / INDEX).is_file():
            files = indexed(folder / INDEX)
            weights = cls(folder, files)
            held = {file: weights._held(file) for file in set(files.values())}
            for name, file in files.items():
                if name not in held[file]:
                    raise ModelError(f"{file} lacks {name}, which the index says it holds")
            return weights
        raise ModelError(
            f"no {FILE} in {folder}, nor an index of several; `score package` reads other layouts"
        )

    @classmethod
    def of(cls, file: Path) -> Weights:
        """The weights in one file. Raises ModelError."""
        return cls(file.parent, dict.fromkeys(_open(file).keys(), file))

    def names(self) -> list[str]:
        """The tensors there are."""
        return list(self._files)

    def _held(self, file: Path) -> frozenset[str]:
        return frozenset(self._opened[file].keys())

    def shape(self, name: str) -> Shape | None:
        """A tensor's shape, from its header alone; None where there is no such tensor.

        Raises ModelError for one that is no float.
        """
        if name not in self._files:
            return None
        header = self._opened[self._files[name]].get_slice(name)
        if header.get_dtype() not in _FLOATS:
            raise ModelError(
                f"{self._files[name]}: {name} is {header.get_dtype()}, not {', '.join(_FLOATS)}"
            )
        return tuple(header.get_shape())

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
        for name in wanted:
            shape = self.shape(name)
            if shape != wanted[name]:
                raise ModelError(
                    f"{self._files[name]}: {name} is {shown(shape)}; "
                    f"config.json wants {shown(wanted[name])}"
                )

    def read(self, name: str) -> Tensor:
        """One tensor, in its own precision; a view of the file."""
        tensor: Tensor = self._opened[self._files[name]].get_tensor(name)
        return tensor


def indexed(index: Path) -> dict[str, Path]:
    """What an index (`…index.json`) says: tensor → file. The files must lie beside it.

    Raises ModelError.
    """
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise ModelError(f"cannot read {index}: it has no weight_map")
    files = {name: index.parent / str(file) for name, file in places.items()}
    for name, file in dict(zip(places.values(), files.values(), strict=True)).items():
        if Path(str(name)).name != name or name in ("", ".", ".."):
            raise ModelError(f"{index} names a file outside its folder: {str(name)[:200]!r}")
        if not file.is_file():
            raise ModelError(
                f"{index.parent} lacks {name}, which its index names: half a download?"
            )
    return files


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is no whole safetensors file: {_reason(file, error)}") from error


def _reason(file: Path, error: Exception) -> str:
    with file.open("rb") as stream:
        head = stream.read(len(_LFS_POINTER))
    if head == _LFS_POINTER:
        return "it is a Git LFS pointer; run `git lfs pull`"
    return f"{error}; half a download?"


def shown(shape: Shape | None) -> str:
    """A shape as messages spell it: 2×3."""
    return "×".join(map(str, shape or ())) or "a scalar"
