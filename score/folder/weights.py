"""The tensors of a model folder: safetensors files, checked before they are read.

Names, shapes and types are compared with what the model needs from the files' headers alone. Each
tensor is read when it is used, so there is never a second copy of a model in memory.
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
from score.folder.small_files import TABLE
from score.wording.quoting import quoted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_LARGEST_HEADER = 8 * 2**20  # bytes; 1,500 tensors take 180,000
_NAMED = 3  # most tensors that a message lists
_LONGEST = 80  # characters of a tensor's name in a message

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Weights:
    """Tensors by name, in one safetensors file or several."""

    def __init__(self, folder: Path, opened: Mapping[Path, Any], files: Mapping[str, Path]) -> None:
        """`opened`: file → its open reader; `files`: tensor → the file it is in."""
        self._folder = folder
        self._opened = opened
        self._files = dict(files)
        self._headers: dict[Path, tuple[dict[str, Any], int]] = {}

    @classmethod
    def open(cls, folder: Path) -> Weights:
        """The weights in `folder`. Raises ModelError for missing, invalid or incomplete files."""
        if (folder / FILE).is_file():
            return cls.of(folder / FILE)
        if (folder / INDEX).is_file():
            files = read_index(folder / INDEX)
            opened = {file: _open(file) for file in dict.fromkeys(files.values())}
            contents = {file: frozenset(tensors.keys()) for file, tensors in opened.items()}
            for name, file in files.items():
                if name not in contents[file]:
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
        """The names of all tensors."""
        return list(self._files)

    def shape(self, name: str) -> Shape | None:
        """A tensor's shape, from the file's header; None for a tensor that does not exist.

        Raises ModelError for a type that is not floating-point.
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
        """The type of a tensor that exists, from the file's header."""
        import torch

        stored = self._opened[self._files[name]].get_slice(name).get_dtype()
        dtype: torch.dtype = getattr(torch, _DTYPES[stored])
        return dtype

    def check(self, wanted: Mapping[str, Shape]) -> None:
        """Raises ModelError unless every tensor in `wanted` exists as a float of that shape.

        Only headers are read. Extra tensors are ignored.
        """
        missing = [name for name in wanted if name not in self._files]
        if missing:
            extra = [name for name in self._files if name not in wanted]
            raise ModelError(
                f"{self._folder} lacks {len(missing)} of the tensors that its config.json needs, "
                f"such as {missing[0]}; {tensors_present(extra, self._files)}"
                + ("; `score package` can convert other names" if extra else "")
            )
        for name in wanted:
            shape = self.shape(name)
            if shape != wanted[name]:
                raise ModelError(
                    f"{self._files[name]}: {name} is {shape_text(shape)}; "
                    f"config.json wants {shape_text(wanted[name])}"
                )

    def read(self, name: str) -> Tensor:
        """Reads one tensor into new memory, in its stored precision.

        A view of the memory-mapped file would change, or crash the process, if the file changed,
        and its pages would count as memory of this process. Raises ModelError.
        """
        import torch

        file = self._files[name]
        dtype, start = self._stored(file, name)
        tensor = torch.empty(self.shape(name) or (), dtype=getattr(torch, _DTYPES[dtype]))
        content = tensor.reshape(-1).view(torch.uint8).numpy()
        try:
            with file.open("rb") as stream:  # buffered, because one system call reads at most 2 GiB
                stream.seek(start)
                if stream.readinto(content.data) != len(content):
                    raise ModelError(f"{file} ends before the end of {name}")
        except OSError as error:
            raise ModelError(f"cannot read {file}: {error}") from error
        return tensor

    def _stored(self, file: Path, name: str) -> tuple[str, int]:
        """A tensor's type and offset in its file in bytes; `safe_open` has validated both."""
        if file not in self._headers:
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                self._headers[file] = json.loads(stream.read(size)), 8 + size
        header, start = self._headers[file]
        return header[name]["dtype"], start + header[name]["data_offsets"][0]


def read_index(index: Path) -> dict[str, Path]:
    """The content of an index (`…index.json`): tensor → file in the index's folder.

    Raises ModelError.
    """
    files = read_json(index, TABLE).get("weight_map")
    if not isinstance(files, dict):
        raise ModelError(f"cannot read {index}: it has no weight_map")
    return {name: file_beside(index, file) for name, file in files.items()}


def file_beside(index: Path, name: object) -> Path:
    """The file `name` in the folder of an index that lists it. Raises ModelError."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ModelError(f"{index} names a file outside its folder: {quoted(name)}")
    if not _is_file(index.parent / name):
        raise ModelError(
            f"{index.parent} lacks {printable_name(name)}, which its index names: half a download?"
        )
    return index.parent / name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False


def _open(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            stated = int.from_bytes(stream.read(8), "little")
        if stated > _LARGEST_HEADER:
            raise SafetensorError(f"its header states {stated:,} bytes")
        return safe_open(file, framework="np")  # headers alone are read; "pt" would import torch
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} is not a complete safetensors file: {_reason(file, error)}"
        ) from error


def _reason(file: Path, error: Exception) -> str:
    if is_lfs_pointer(file):
        return f"it is {LFS_POINTER}"
    return f"{error}; half a download?"


def tensors_present(extra: Sequence[str], names: Iterable[str]) -> str:
    """Part of a message about missing tensors: some of those that exist instead.

    extra: tensors that the model does not use; names: all tensors.
    """
    first = [printable_name(name) for name in (extra or list(names))[:_NAMED]]
    more = len(extra) - len(first)
    if not first:
        return "it holds none"
    listed = ", ".join(first) + (f" and {more:,} more" if more > 0 else "")
    return f"it holds {listed}" + (", which the model does not use" if extra else " and others")


def printable_name(name: str) -> str:
    """A name from a file, shortened and without control characters, for a message."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"


def shape_text(shape: Shape | None) -> str:
    """A shape in a message: 2×3."""
    return "×".join(map(str, shape or ())) or "a scalar"
