"""Which files a job reads, told by their content, so that a changed input is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from score.job_folder.ledger import number
from score.storage.remote import Input, is_folder, size_of
from score.tables.lines import Lines
from score.type_aliases import Json
from score.wording.quoting import quoted

_BLOCK = 2**20  # bytes
_BLOCKS = 512  # of a file that are read: all of one of 512 MiB, else as many at equal distances


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, or a folder as a whole.

    bytes: of all its files. modified: of the file, in nanoseconds; 0 of a folder. sha256: of the
    content, of which only some is read where it is large; of a folder, of the names and sizes; in
    an object store, of the versions there.
    """

    name: str
    bytes: int
    modified: int
    sha256: str

    @classmethod
    def of(cls, file: Input) -> Self:
        """Reads a file, lists a folder, or takes an object store's word. Raises OSError."""
        if not isinstance(file, Path):
            version = hashlib.sha256(file.version.encode()).hexdigest()
            return cls(file.name, file.size, 0, version)
        return cls._of_folder(file) if file.is_dir() else cls._of_file(file)

    @classmethod
    def _of_file(cls, path: Path) -> Self:
        with path.open("rb") as stream:
            about = os.fstat(stream.fileno())
            content = hashlib.sha256()
            for start in _starts(about.st_size):
                stream.seek(start)
                content.update(stream.read(_BLOCK))
        return cls(path.name, about.st_size, about.st_mtime_ns, content.hexdigest())

    @classmethod
    def _of_folder(cls, path: Path) -> Self:
        listing, size = hashlib.sha256(), 0
        for name, of_it in _listed(path, ""):
            size += of_it
            listing.update(f"{len(name)}:".encode() + os.fsencode(name) + f"={of_it};".encode())
        return cls(path.name, size, 0, listing.hexdigest())

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """From JSON. Raises KeyError, TypeError, ValueError."""
        name, sha256 = content["name"], content["sha256"]
        if not isinstance(name, str) or not isinstance(sha256, str):
            raise ValueError(f"an input is named {quoted(name)}")
        number(abs(content["modified"]))
        return cls(name, number(content["bytes"]), content["modified"], sha256)

    def json(self) -> Json:
        """As JSON."""
        return asdict(self)

    def change(self, now: InputFile) -> str:
        """What has changed since, as the rest of a sentence; empty for nothing."""
        if self.name != now.name:
            return f"the input was {quoted(self.name)}, and is {quoted(now.name)} now"
        what = f"the input {quoted(self.name)}"
        if self.bytes != now.bytes:
            return f"{what} had {self.bytes:,} bytes, and has {now.bytes:,} now"
        if self.sha256 != now.sha256:
            return f"{what} has another content now"
        if self.modified != now.modified and self.bytes > _BLOCK * _BLOCKS:
            # Too large to be read as a whole just for this.
            return (
                f"{what} was modified {_at(now.modified)}, after the job began with the one of "
                f"{_at(self.modified)} (if its content is the same, give it that time again)"
            )
        return ""


def of(files: Sequence[Input]) -> tuple[InputFile, ...]:
    """Each of a job's input files, named below the folder that all of them are below. Raises
    OSError."""
    here = [file.absolute() for file in files if isinstance(file, Path)]
    shared = os.path.commonpath([file.parent for file in here]) if len(here) == len(files) else ""
    named = []
    for file in files:
        found = InputFile.of(file)
        if shared and isinstance(file, Path):
            found = replace(found, name=file.absolute().relative_to(shared).as_posix())
        named.append(found)
    return tuple(named)


def sizes_of(lines: Lines) -> tuple[int, ...]:
    """The bytes of each input file; 0 for a folder of images. Raises OSError."""
    return tuple(0 if is_folder(file) else size_of(file) for file in lines.files)


def change(before: Sequence[InputFile], now: Sequence[InputFile]) -> str:
    """What has changed since in a job's input, as the rest of a sentence; empty for nothing."""
    if len(before) != len(now):
        return f"there were {len(before):,} input files, and are {len(now):,} now"
    return next(filter(None, map(InputFile.change, before, now)), "")


def _starts(size: int) -> Iterator[int]:
    """Where the blocks begin that are read: the first, the last, and those between."""
    if size <= _BLOCK * _BLOCKS:
        yield from range(0, size, _BLOCK)
    else:
        yield from (number * (size - _BLOCK) // (_BLOCKS - 1) for number in range(_BLOCKS))


def _listed(folder: Path, below: str) -> Iterator[tuple[str, int]]:
    """Name and size of each file below a folder, in a fixed order, hidden ones left out."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _listed(Path(entry.path), f"{below}{entry.name}/")
        else:
            yield below + entry.name, _size(entry)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link that leads nowhere
        return -1


def _at(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(" ", "seconds")
