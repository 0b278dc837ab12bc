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
from score.folder import LFS_POINTER, is_lfs_pointer, read_json

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FLOATS = ("F64", "F32", "F16", "BF16")


class Weights:
    """Tensors by name, in one safetensors file or several."""

    def __init__(self, folder: Path, opened: Mapping[Path, Any], files: Mapping[str, Path]) -> None:
        """`opened`: the files; `files`: where each tensor is."""
        self._folder = folder
        self._opened = opened
        self._files = dict(files)

    @classmethod
    def open(cls, folder: Path) -> Weights:
        """The weights in `folder`. Raises ModelError for files that are none, or not whole."""
        if (folder / FILE).is_file():
            return cls.of(folder / FILE)
        if (folder / INDEX).is_file():
            files = indexed(folder / INDEX)
            opened = {file: _open(file) for file in dict.fromkeys(files.values())}
            held = {file: frozenset(tensors.keys()) for file, tensors in opened.items()}
            for name, file in files.items():
                if name not in held[file]:
                    raise ModelError(f"{file} lacks {name}, which the index says it holds")
            return cls(folder, opened, files)
        raise ModelError(
            f"no {FILE} in {folder}, nor an index of several; `score package` reads other layouts"
        )

    @classmethod
    def of(cls, file: Path) -> Weights:
        """The weights in one file. Raises ModelError."""
        tensors = _open(file)
        return cls(file.parent, {file: tensors}, dict.fromkeys(tensors.keys(), file))

    def names(self) -> list[str]:
        """The tensors there are."""
        return list(self._files)

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
    return {name: beside(index, file) for name, file in places.items()}


def beside(index: Path, name: object) -> Path:
    """The file that an index names, which must lie in the index's own folder. Raises ModelError."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ModelError(f"{index} names a file outside its folder: {str(name)[:200]!r}")
    if not (index.parent / name).is_file():
        raise ModelError(f"{index.parent} lacks {name}, which its index names: half a download?")
    return index.parent / name


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is no whole safetensors file: {_reason(file, error)}") from error


def _reason(file: Path, error: Exception) -> str:
    if is_lfs_pointer(file):
        return f"it is {LFS_POINTER}"
    return f"{error}; half a download?"


def shown(shape: Shape | None) -> str:
    """A shape as messages spell it: 2×3."""
    return "×".join(map(str, shape or ())) or "a scalar"
