"""The tensors of HDF5 files as Keras 3 writes weights: one file, or shards and their index.

The position and type of each tensor are read from the headers; its bytes are then mapped, so that
memory never holds a second copy of a model. Keras writes plain, contiguous, little-endian floats
(bfloat16 as two opaque bytes with a note, `keras.src.saving.saving_lib.H5IOStore`), reached by hard
links. HDF5's other features, such as reading another file, are refused, and no link is
followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from score.errors import ModelError
from score.folder.architecture import Shape
from score.folder.model_folder import LFS_POINTER, is_lfs_pointer, read_json
from score.folder.small_files import TABLE
from score.folder.weights import file_beside

FILE = "model.weights.h5"
INDEX = "model.weights.json"

_NOTE = 64  # bytes that the note on a type has at most


class _Dataset(NamedTuple):
    """A tensor in its file. `stored`: its NumPy type there; `dtype`: its torch type."""

    file: Path
    offset: int
    shape: Shape
    stored: str
    dtype: torch.dtype


class H5:
    """Tensors by their path in the files, such as `layers/dense/vars/0`."""

    def __init__(self, files: Mapping[str, list[Path]], default: list[Path]) -> None:
        """`files`: group → the file of its tensors; `default`: the file of all other groups."""
        self._groups = files
        self._default = default
        listed = [file for files in (*self._groups.values(), default) for file in files]
        self._files = {file: _open(file) for file in dict.fromkeys(listed)}
        self._held = sum(file.stat().st_size for file in self._files)
        self._stated: dict[str, int] = {}  # tensor → bytes

    @classmethod
    def open(cls, folder: Path) -> H5:
        """The weights in `folder`. Raises ModelError for files that are none, or not whole."""
        if (folder / FILE).is_file():
            return cls({}, [folder / FILE])
        if (folder / INDEX).is_file():
            return cls(dict(_indexed(folder)), [])
        raise ModelError(f"no weights in {folder}: neither {FILE} nor {INDEX}")

    def names(self) -> list[str]:
        """Always empty: Keras stores the optimizer's tensors beside the model's."""
        return []

    def shape(self, name: str) -> Shape | None:
        """As `source.Tensors.shape`. Raises ModelError for what Keras would not have written."""
        dataset = self._find(name)
        return dataset.shape if dataset else None

    def dtype(self, name: str) -> torch.dtype:
        """As `source.Tensors.dtype`."""
        dataset = self._find(name)
        assert dataset, f"{name} was not looked for"
        return dataset.dtype

    def read(self, name: str) -> Tensor:
        """As `source.Tensors.read`; a view of the file."""
        dataset = self._find(name)
        assert dataset, f"{name} was not looked for"
        values = np.memmap(
            dataset.file,
            dataset.stored,
            "c",
            offset=dataset.offset,
            shape=(math.prod(dataset.shape),),
        )
        tensor = torch.from_numpy(np.require(values, requirements="A"))  # HDF5 need not align them
        return tensor.view(dataset.dtype).reshape(dataset.shape)

    def _find(self, name: str) -> _Dataset | None:
        group = name.rpartition("/")[0]
        for file in self._groups.get(group, self._default):
            try:
                dataset = _dataset(self._files[file], name)
                if dataset is not None:
                    return self._claimed(name, _located(file, dataset))
            except ModelError as error:
                raise ModelError(f"{file}: {name} {error}") from None
            except Exception as error:  # h5py raises various errors for a damaged file
                reason = " ".join(str(error)[:200].split())
                raise ModelError(f"{file}: {name} is damaged: {reason}") from error
        return None

    def _claimed(self, name: str, dataset: _Dataset) -> _Dataset:
        """Raises ModelError where tensors share bytes: few bytes would make a huge model."""
        self._stated[name] = math.prod(dataset.shape) * dataset.dtype.itemsize
        stated = sum(self._stated.values())
        if stated > self._held:
            raise ModelError(f"shares its bytes with others: {stated:,} of {self._held:,} in all")
        return dataset


def _open(file: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise ModelError("Keras weights are read with h5py: install the extra `package`") from None
    try:
        return h5py.File(file, "r")
    except Exception as error:  # as above
        pointer = is_lfs_pointer(file)
        reason = f"it is {LFS_POINTER}" if pointer else "half a download?"
        raise ModelError(f"{file} is no whole HDF5 file: {reason}") from error


def _indexed(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """An index as group → files, which must lie beside it."""
    groups = read_json(folder / INDEX, TABLE).get("weight_map")
    if not isinstance(groups, Mapping):
        raise ModelError(f"{folder / INDEX} has no weight_map")
    for group, value in groups.items():
        names = value if isinstance(value, list) else [value]  # a group may be split between shards
        yield group.strip("/"), [file_beside(folder / INDEX, name) for name in names]


def _dataset(file: Any, name: str) -> Any:
    """The dataset at a path, None where there is none. Raises ModelError."""
    import h5py

    node = file
    for part in name.split("/"):
        if not isinstance(node, h5py.Group):
            raise ModelError("lies within what is no group")
        link = node.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            kind = "an ExternalLink" if isinstance(link, h5py.ExternalLink) else "a SoftLink"
            raise ModelError(f"is reached over {kind}, which is not followed")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise ModelError("is no dataset")
    return node


def _located(file: Path, dataset: Any) -> _Dataset:
    """The position of a dataset's bytes, from its header alone. Raises ModelError."""
    import h5py

    if dataset.shape is None:
        raise ModelError("is empty")
    if dataset.is_virtual or dataset.external:
        raise ModelError("is kept in another file, which is not read")
    if dataset.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
        raise ModelError("is chunked or compressed, as Keras writes no weights")
    stored, dtype = _type(dataset)
    size = math.prod(dataset.shape) * dtype.itemsize
    offset, held = dataset.id.get_offset(), dataset.id.get_storage_size()
    if offset is None or held != size:
        raise ModelError(f"declares {size:,} bytes and holds {held:,}")
    if offset + size > file.stat().st_size:
        raise ModelError("reaches beyond the end of its file")
    return _Dataset(file, offset, dataset.shape, stored, dtype)


def _type(dataset: Any) -> tuple[str, torch.dtype]:
    """NumPy's and torch's name of a dataset's type. Raises ModelError unless it is a float."""
    import h5py

    type = dataset.id.get_type()
    for known, stored, dtype in (
        (h5py.h5t.IEEE_F32LE, "<f4", torch.float32),
        (h5py.h5t.IEEE_F16LE, "<f2", torch.float16),
        (h5py.h5t.IEEE_F64LE, "<f8", torch.float64),
    ):
        if type == known:
            return stored, dtype
    if type.get_class() == h5py.h5t.OPAQUE and type.get_size() == 2:
        notes = dataset.attrs
        is_short = "dtype" in notes and notes.get_id("dtype").get_storage_size() <= _NOTE
        note = notes["dtype"] if is_short else None
        if isinstance(note, str) and note == "bfloat16":
            return "<i2", torch.bfloat16
    raise ModelError(f"is of type {str(dataset.dtype)[:80]}, no float that Keras writes")
