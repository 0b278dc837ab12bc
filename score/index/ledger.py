"""`index.json`: what an index holds, and of which files.

It is written last, and by renaming, so it is the point at which a new or longer index comes into
being: it names the version of the table that counts. What a killed job added to the table later is
of a newer version, which readers do not see, and the next `--append` takes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from score.errors import RequestError
from score.index.origin import Origin
from score.storage import atomic
from score.storage.digest import sha256_of
from score.storage.remote import read_file

NAME = "index.json"
FORMAT = 1
OLD = ("vectors.npy", "rows.parquet")
"""The files of an index of earlier versions, and of `score index --export npy`."""

_LARGEST = 2**28  # bytes: half a million files


@dataclass(frozen=True, slots=True)
class Source:
    """A file whose vectors are in the index.

    size, modified: bytes, and nanoseconds since 1970, by which a file that has not changed is known
    without reading it. digest: SHA-256 of its bytes, by which it is known wherever it lies.
    rows, vectors: how many it has; rows without a vector are not in the index. first: the number of
    its first row, of all rows that the index has ever had; by it the table knows the file's rows.
    """

    path: str
    size: int
    modified: int
    digest: str
    rows: int = 0
    vectors: int = 0
    first: int = 0

    @classmethod
    def of(cls, file: Path) -> Source:
        """Reads the whole file. Raises OSError."""
        state = file.stat()
        return cls(str(file.resolve()), state.st_size, state.st_mtime_ns, sha256_of(file))

    @property
    def end(self) -> int:
        """The number of the row after its last."""
        return self.first + self.rows


@dataclass(frozen=True, slots=True)
class Ledger:
    """What an index holds.

    version: of Lance's table. column: of the files, whose vectors it has. trained: the number of
    vectors that the approximate index was trained on; 0 where the search is exact.
    """

    version: int
    column: str
    dimension: int
    origin: Origin
    trained: int = 0
    sources: tuple[Source, ...] = field(default=())

    @property
    def vectors(self) -> int:
        """The number of its vectors."""
        return sum(source.vectors for source in self.sources)

    @property
    def end(self) -> int:
        """The number that no row has, nor any after it."""
        return max((source.end for source in self.sources), default=0)

    def write(self, folder: Path) -> None:
        """Writes `index.json`, which replaces an older one at once. Raises OSError."""
        with atomic.file(folder / NAME) as part:
            part.write_text(json.dumps({"format": FORMAT, **asdict(self)}), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path | str) -> Ledger:
        """Of a folder, or of one in an object store by its URL. Raises RequestError for one that
        holds no index."""
        try:
            return cls._of(json.loads(_content(folder)))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RequestError(f"{folder} holds no index: {_what(error)}") from error

    @classmethod
    def _of(cls, said: Any) -> Ledger:
        """Raises ValueError, TypeError or KeyError for what is no ledger."""
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise ValueError(f"{NAME} is not of format {FORMAT}")
        sources = tuple(_sources(said["sources"]))
        ledger = cls(
            said["version"],
            said["column"],
            said["dimension"],
            Origin(**said["origin"]),
            said["trained"],
            sources,
        )
        numbers = [ledger.version, ledger.dimension, ledger.trained]
        numbers += [n for each in sources for n in (each.rows, each.vectors, each.size, each.first)]
        texts = [ledger.column, ledger.origin.model, ledger.origin.fingerprint]
        texts += [text for each in sources for text in (each.path, each.digest)]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"{NAME} holds a number that is none")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{NAME} holds a text that is none")
        return ledger

    def changes(self, files: Iterable[Path]) -> Changes:
        """What some files have that the index has not. Raises OSError."""
        by_path = {source.path: source for source in self.sources}
        found, replaced = list[Source](), list[Source]()
        for path, file in {str(file.resolve()): file for file in files}.items():
            before = by_path.get(path)
            state = file.stat()
            if before and (before.size, before.modified) == (state.st_size, state.st_mtime_ns):
                continue
            source = Source.of(file)
            if before and before.digest == source.digest:
                continue
            if before:
                replaced.append(before)
            found.append(source)
        gone = {source.path for source in replaced}
        known = {source.digest for source in self.sources if source.path not in gone}
        new = dict[str, Source]()
        for source in found:
            if source.digest not in known:
                new.setdefault(source.digest, source)
        return Changes(list(new.values()), replaced)


@dataclass(frozen=True, slots=True)
class Changes:
    """How files differ from an index: new ones, each content once; and those in the index that have
    other content now."""

    new: Sequence[Source]
    replaced: Sequence[Source]


def _sources(said: Iterable[Any]) -> Iterator[Source]:
    """Earlier versions did not write `first`: they replaced no file, so that each follows the one
    before it."""
    end = 0
    for content in said:
        source = Source(**{"first": end, **content})
        yield source
        end = source.end


def _what(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {NAME}"
    if isinstance(error, json.JSONDecodeError | KeyError | TypeError | RecursionError):
        return f"{NAME} is not what `score index` wrote"
    return str(error)


def _content(folder: Path | str) -> bytes:
    """What `index.json` holds. Raises OSError, ValueError, RequestError."""
    if isinstance(folder, str):
        return read_file(f"{folder.rstrip('/')}/{NAME}", _LARGEST)
    file = folder / NAME
    if not file.exists() and all((folder / name).exists() for name in OLD):
        raise RequestError(
            f"{folder} holds no index: its vectors.npy and rows.parquet are of an earlier "
            "version, or an export: build the index again with `score index`"
        )
    if file.stat().st_size > _LARGEST:
        raise ValueError(f"{NAME} is larger than {_LARGEST:,} bytes")
    return file.read_bytes()
