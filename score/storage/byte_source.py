"""A file's bytes from any place on, unpacked where the file's name says that it is packed."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from pathlib import Path
from typing import IO, Any

from typing_extensions import override

from score.errors import RequestError
from score.storage.remote import File

PACKINGS = {".gz": ".gz", ".tgz": ".gz", ".zst": ".zst"}
"""The endings of packed files' names, in lower case → how they are packed."""

BLOCK = 2**16
"""Bytes that are read, or unpacked, at a time: always from a multiple of it on."""


def packing_of(name: str) -> str:
    """How a file of this name is packed: `.gz` or `.zst`; empty for other files."""
    lower = name.lower()
    return next((packing for end, packing in PACKINGS.items() if lower.endswith(end)), "")


class ByteSource:
    """An open file, read from any byte on, in memory that does not grow with it.

    Places are counted in the unpacked bytes. To get to one in a packed file, all before it is
    unpacked again. size: bytes of the file as it is stored. is_packed: where it is not, a place is
    the `position`. Raises OSError where it cannot be
    opened or read, also for what is wrongly packed; RequestError for a place behind its end.
    """

    def __init__(self, path: File) -> None:
        self.path, self._packing = path, packing_of(path.name)
        self.is_packed = bool(self._packing)
        if isinstance(path, Path):
            self._raw: Any = path.open("rb", buffering=0)
            self.size = os.fstat(self._raw.fileno()).st_size
        else:
            self._raw, self.size = path.open(), path.size
        self._reading: _Plain | _Unpacked | None = None

    def __enter__(self) -> ByteSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def read_from(self, place: int) -> IO[bytes]:
        """The bytes from a place on. Ends what was read before from this source."""
        if self._packing:
            self._raw.seek(0)
            self._reading = _Unpacked(self._raw, self._packing)
            reached = self._reading.skip(place)
        else:
            self._reading = _Plain(self._raw)
            reached = min(place, self.size)
            self._raw.seek(reached)
        if reached < place:
            raise RequestError(
                f"{self.path.name} ends before byte {place:,}, where its reading should go on: it "
                "is not the file that was read before"
            )
        return io.BufferedReader(self._reading, BLOCK)

    def position(self, place: int) -> int:
        """How far the file has been read, in bytes as it is stored, where a place was reached."""
        return self._reading.stored if isinstance(self._reading, _Unpacked) else place


class _Plain(io.RawIOBase):
    """A file that stays open when this is closed, or collected as garbage."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        return int(self._raw.readinto(buffer) or 0)


class _Unpacked(io.RawIOBase):
    """A packed file's content, in blocks.

    stored: bytes of the file that have been read for the blocks up to the current one. It depends
    on the block alone, not on where the reading began, so a job that goes on counts as before.
    """

    def __init__(self, raw: Any, packing: str) -> None:
        self._raw, self._file = raw, _unpacker(raw, packing)
        self._block, self._at, self.stored = b"", 0, 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        if self._at == len(self._block):
            self._next()
        piece = self._block[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def skip(self, count: int) -> int:
        """Goes on by so many bytes, or to the end. The bytes that were skipped."""
        left = count
        while left:
            if self._at == len(self._block) and not self._next():
                break
            step = min(left, len(self._block) - self._at)
            self._at += step
            left -= step
        return count - left

    def _next(self) -> bool:
        """Unpacks the next block: a whole one but at the end. Whether there was one."""
        try:
            self._block, self._at = self._file.read(BLOCK), 0
        except (EOFError, gzip.BadGzipFile, zlib.error, _zstd().ZstdError) as error:
            raise OSError(str(error)) from error
        self.stored = self._raw.tell()
        return bool(self._block)


def _unpacker(raw: IO[bytes], packing: str) -> IO[bytes]:
    if packing == ".gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[return-value]
    # Its window is at most 128 MiB, zstd's own bound unless one asks for more.
    return _zstd().ZstdFile(raw, mode="rb")  # type: ignore[no-any-return]


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
