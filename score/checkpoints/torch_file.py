"""A file of `torch.save`: its content by `restricted_pickle`, and where its storages lie.

Two layouts: a zip archive, and before torch 1.6 five pickles with the storages behind them. Both
are read here, not by `torch.load`, which spends memory and time on what a file states before any
of it can be checked. Sizes that the pickle states are compared with those of the file.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from score.checkpoints import restricted_pickle
from score.checkpoints.restricted_pickle import RESAVE, MoreThanTensors, StoredTensor
from score.errors import ModelError
from score.folder.model_folder import LFS_POINTER, is_lfs_pointer
from score.wording.quoting import quoted

_LARGEST = 32 * 2**20  # bytes of a pickle: forty times any published
_LARGEST_DIRECTORY = 8 * 2**20  # bytes, of an archive: each member takes ten times as much memory
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles before torch 1.6
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member: the lengths of its name and extra field


class TorchFile(NamedTuple):
    """What a file holds. starts: storage → the offset of its bytes in the file."""

    path: Path
    content: Any
    starts: Mapping[str, int]

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """Reads everything but the storages. Raises ModelError."""
        if is_lfs_pointer(path):
            raise ModelError(f"{path} is {LFS_POINTER}")
        with _Stream(io.FileIO(path)) as stream:
            head = stream.peek(4)[:4]
            if not head.startswith((b"PK", b"\x80")):  # a zip, or a bare pickle
                raise ModelError(f"{path} is no torch file: it begins with {head!r}")
            try:
                content, starts = (_archive if head[:2] == b"PK" else _pickles)(stream)
            except MoreThanTensors as error:
                raise ModelError(
                    f"{path} holds more than tensors, and is not executed: {error} ({RESAVE})"
                ) from None
            except ModelError as error:
                raise ModelError(f"{path} {error}") from None
            except _DAMAGED as error:
                reason = str(error)[:200] or "it ends early"  # an EOFError says nothing
                raise ModelError(f"{path} is no whole torch file: {reason}") from None
        return cls(path, content, starts)

    def read(self, tensor: StoredTensor) -> Tensor:
        """A tensor, as a view of the mapped file where that is aligned."""
        if not math.prod(tensor.shape):
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        item = tensor.dtype.itemsize
        start, size = self.starts[tensor.storage.key] + tensor.offset * item, tensor.span * item
        mapped = torch.from_numpy(np.memmap(self.path, np.uint8, "c", offset=start, shape=(size,)))
        aligned = mapped if start % item == 0 else mapped.clone()
        return aligned.view(tensor.dtype).as_strided(tensor.shape, tensor.stride)


_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, ValueError, struct.error, RuntimeError)
"""Raised for damaged files; RuntimeError is `zipfile`'s for encryption and unknown compressions."""


class _Stream(io.BufferedReader):
    """A file that is read in parts of a bounded size: `zipfile` reads a directory in one."""

    most = _LARGEST

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise _too_large(self.most)
        return super().read(size)


def _too_large(most: int) -> ModelError:
    return ModelError(f"has a pickle or a directory of over {most:,} bytes ({RESAVE})")


def _archive(stream: _Stream) -> tuple[Any, dict[str, int]]:
    """The content and the storages of a zip archive."""
    stream.most = _LARGEST_DIRECTORY
    with zipfile.ZipFile(stream) as archive:
        stream.most = _LARGEST
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"the archive has {len(pickles)} members data.pkl")
        prefix = pickles[0].removesuffix("data.pkl")
        if f"{prefix}constants.pkl" in members:
            raise ModelError(
                "is a TorchScript archive, which holds code; use a checkpoint that holds weights"
            )
        packed = next((info for info in members.values() if info.compress_type), None)
        if packed:
            raise ModelError(
                f"compresses {quoted(packed.filename)}, which torch.save never does ({RESAVE})"
            )
        order = members.get(f"{prefix}byteorder")
        if order and archive.open(order).read(10) != b"little":
            raise ModelError(f"was written on a big-endian machine ({RESAVE})")
        content = restricted_pickle.read(io.BytesIO(archive.read(members[pickles[0]])))
        starts = {}
        for storage in content.storages.values():
            member = members.get(f"{prefix}data/{storage.key}")
            if member is None or member.file_size < storage.size:
                held = f"{member.file_size:,} bytes" if member else "nothing"
                raise ValueError(
                    f"data/{storage.key[:80]} should hold {storage.size:,} bytes, and holds {held}"
                )
            starts[storage.key] = _start(stream, member, archive.start_dir)
    return content.value, starts


def _start(stream: _Stream, member: zipfile.ZipInfo, end: int) -> int:
    """The offset of a member's bytes, which end before `end`, the archive's directory."""
    stream.seek(member.header_offset)
    name, extra = _LOCAL_HEADER.unpack(stream.read(30))
    start: int = member.header_offset + 30 + name + extra
    if start + member.file_size > end:
        raise ValueError(f"{member.filename[:80]} reaches beyond the end of its file")
    return start


def _pickles(stream: _Stream) -> tuple[Any, dict[str, int]]:
    """The content and the storages of a file of torch before 1.6."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = io.BytesIO(stream.read(min(size, _LARGEST)))
    if any(restricted_pickle.read(head).value != first for first in (_MAGIC, _PROTOCOL)):
        raise ValueError("it is another kind of pickle")
    system = restricted_pickle.read(head).value
    if type(system) is not dict or system.get("little_endian") is not True:
        raise ModelError(f"was written on a big-endian machine ({RESAVE})")
    try:
        content, storages = restricted_pickle.read(head)
    except ValueError:
        if _LARGEST == head.tell() < size:
            raise _too_large(_LARGEST) from None
        raise
    keys = restricted_pickle.read(head).value
    listed = type(keys) is list and all(type(key) is str for key in keys)
    if not listed or sorted(keys) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    starts = {}
    at = head.tell()
    for key in keys:
        stream.seek(at)
        if stream.read(8) != storages[key].elements.to_bytes(8, "little"):
            raise ValueError(f"the storage {key[:80]} is not of the size that its tensors state")
        starts[key] = at + 8
        at += 8 + storages[key].size
    if at > size:
        raise ValueError(f"its storages end at {at:,} bytes, the file at {size:,}")
    return content, starts
