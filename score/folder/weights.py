"""The tensors of a model folder: safetensors files, checked before they are read.

What a file says of itself is compared with what the model needs while it is still only a header; a
tensor is read when it is taken, so that no second copy of a model is ever in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from score.errors import ModelError
from score.folder.architecture import Shape
from score.folder.model_folder import LFS_POINTER, is_lfs_pointer, read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_NAMED = 3  # tensors that a message names
_LONGEST = 80  # characters of a name in a message

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Weights:
    """Tensors by name, in one safetensors file or several."""

    def __init__(self, folder: Path, opened: Mapping[Path, Any], files: Mapping[str, Path]) -> None:
        """`opened`: the files; `files`: where each tensor is."""
        self._folder = folder
        self._opened = opened
        self._files = dict(files)
        self._headers: dict[Path, tuple[dict[str, Any], int]] = {}

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
        if header.get_dtype() not in _DTYPES:
            raise ModelError(
                f"{self._files[name]}: {name} is {header.get_dtype()}, not {', '.join(_DTYPES)}"
            )
        return tuple(header.get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """The precision of a tensor that is there, from its header alone."""
        import torch

        stored = self._opened[self._files[name]].get_slice(name).get_dtype()
        dtype: torch.dtype = getattr(torch, _DTYPES[stored])
        return dtype

    def check(self, wanted: Mapping[str, Shape]) -> None:
        """Raises ModelError unless each tensor wanted is there, in its shape, and a float.

        Only headers are read. Extra tensors are ignored.
        """
        missing = [name for name in wanted if name not in self._files]
        if missing:
            extra = [name for name in self._files if name not in wanted]
            raise ModelError(
                f"{self._folder} lacks {len(missing)} of the tensors that its config.json needs, "
                f"such as {missing[0]}; {held(extra, self._files)}"
                + ("; `score package` knows other names, too" if extra else "")
            )
        for name in wanted:
            shape = self.shape(name)
            if shape != wanted[name]:
                raise ModelError(
                    f"{self._files[name]}: {name} is {shown(shape)}; "
                    f"config.json wants {shown(wanted[name])}"
                )

    def read(self, name: str) -> Tensor:
        """One tensor, in its own precision, in memory of its own.

        Not a view of the file: that would change, or crash the process, with the file under it, and
        what was looked at of the file would count as memory of ours. Raises ModelError.
        """
        import torch

        file = self._files[name]
        kind, start = self._place(file, name)
        tensor = torch.empty(self.shape(name) or (), dtype=getattr(torch, _DTYPES[kind]))
        content = tensor.reshape(-1).view(torch.uint8).numpy()
        try:
            with file.open("rb") as stream:  # buffered: one system call reads no more than 2 GiB
                stream.seek(start)
                if stream.readinto(content.data) != len(content):
                    raise ModelError(f"{file} ends before the end of {name}")
        except OSError as error:
            raise ModelError(f"cannot read {file}: {error}") from error
        return tensor

    def _place(self, file: Path, name: str) -> tuple[str, int]:
        """A tensor's type, and where in its file it begins; `safe_open` has checked both."""
        if file not in self._headers:
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                self._headers[file] = json.loads(stream.read(size)), 8 + size
        header, start = self._headers[file]
        return header[name]["dtype"], start + header[name]["data_offsets"][0]


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


def held(extra: Sequence[str], names: Iterable[str]) -> str:
    """Which tensors there are instead of those that are missing, for a message.

    extra: those that the model has no place for; names: all of them.
    """
    some = [clipped(name) for name in (extra or list(names))[:_NAMED]]
    more = len(extra) - len(some)
    if not some:
        return "it holds none"
    listed = ", ".join(some) + (f" and {more:,} more" if more > 0 else "")
    return f"it holds {listed}" + (", which have no place there" if extra else " and others")


def clipped(name: str) -> str:
    """A name from a file, fit to be printed."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"


def shown(shape: Shape | None) -> str:
    """A shape as messages spell it: 2×3."""
    return "×".join(map(str, shape or ())) or "a scalar"
