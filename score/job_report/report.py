"""What a job's folder tells of the job: the content of `report.json` and of `report.html`."""

from __future__ import annotations

import platform
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from score import __version__
from score.errors import RequestError
from score.job_folder import ledger
from score.job_folder.folder import holder
from score.job_folder.ledger import Entry
from score.job_folder.manifest import Manifest
from score.job_folder.status import Status
from score.job_report.copies import Copies, CopyCounter
from score.job_report.examples import Failures, add_examples, cell_of, evenly, printable
from score.job_report.rate import Rate, rates
from score.job_report.thumbnails import thumbnail
from score.tables.shard_reader import ShardRow, image_hashes, shard_rows
from score.type_aliases import Json

FORMAT = 1
MOST_FILES = 500
"""Shards that are read for a report, of which each takes some milliseconds: more than that would
take minutes where files are far away."""

FEW_FILES = 50
"""The same where the process is to end soon."""

_HOSTS, _CODES, _GROUPS, _IMAGES = 20, 40, 10, 12  # that are shown
_FILES = 100  # of the input, that are named
_NAME = 200  # characters of a name


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as an example: its number, how its cell begins, and its thumbnail or nothing."""

    row: int
    cell: str
    image: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Copies of an image, and the first of them; None where its shard cannot be read."""

    copies: Copies
    shown: Shown | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a job did.

    written: when, in UTC. seconds: of work. bytes: of all shards. files_read: shards that were
    looked into for copies and images. unread: of those and of the ones read for examples, such as
    could not be read.
    """

    status: Status
    manifest: Manifest
    written: str
    seconds: float
    bytes: int
    rates: Sequence[Rate]
    codes: Sequence[Failures]
    hosts: Sequence[Failures]
    copies: CopyCounter
    groups: Sequence[Group]
    images: Sequence[Shown]
    files_read: int
    unread: int

    @classmethod
    def of(cls, folder: Path, root: Path | None = None, most_files: int = MOST_FILES) -> Report:
        """Reads a job's folder, while the job is running or later.

        root: the folder below which image cells name files; None for no thumbnails. most_files:
        that are read of the shards. Raises RequestError for a folder that holds no job, or a
        damaged one; OSError.
        """
        manifest = Manifest.read(folder)
        entries = list(ledger.in_order({entry.first: entry for entry in ledger.read(folder)}))
        status = Status.given(manifest, entries, holder(folder))
        codes, hosts = _failures(status.failed, _CODES), _failures(status.hosts, _HOSTS)
        shards = _Shards(folder, entries, root)
        unread = add_examples(folder, entries, codes, hosts, most_files)
        copies, files_read = shards.copies(most_files)
        return cls(
            status=status,
            manifest=manifest,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=sum(entry.seconds for entry in entries),
            bytes=sum(entry.bytes for entry in entries),
            rates=rates(entries),
            codes=codes,
            hosts=hosts,
            copies=copies,
            groups=[Group(group, shards.shown(group.first)) for group in copies.largest(_GROUPS)],
            images=shards.images(_IMAGES) if root else [],
            files_read=files_read,
            unread=unread + shards.unread,
        )

    @property
    def rows_per_second(self) -> float:
        """Of the whole job."""
        return self.status.rows / self.seconds if self.seconds else 0.0

    @property
    def inputs(self) -> list[str]:
        """The names of the input's files, the first ones."""
        return [printable(file.name, _NAME) for file in self.manifest.inputs[:_FILES]]

    def json(self) -> Json:
        """As JSON. Thumbnails are left out."""
        status, manifest = self.status, self.manifest
        return {
            "format": FORMAT,
            "written": self.written,
            "written_by": {"version": __version__, "python": platform.python_version()},
            **{name: value for name, value in status.json().items() if name not in _OWN},
            "good": status.rows - status.failed.total(),
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows_per_second, 3),
            "bytes": self.bytes,
            "model": asdict(manifest.identity),
            "dimension": manifest.dimension,
            "options": dict(manifest.options),
            "columns": list(manifest.columns),
            "created": manifest.created,
            "inputs": [
                {**asdict(file), "name": name}
                for file, name in zip(manifest.inputs, self.inputs, strict=False)
            ],
            "input_files": len(manifest.inputs),
            "rates": [{name: round(n, 3) for name, n in asdict(r).items()} for r in self.rates],
            "errors": [_json(failures, "code") for failures in self.codes],
            "hosts": [_json(failures, "host") for failures in self.hosts],
            "copies": self._copies(),
            "files_unread": self.unread,
        }

    def _copies(self) -> Json:
        counter = self.copies
        return {
            "files_read": self.files_read,
            "images": counter.rows,
            "different": counter.different,
            "copies": counter.copies,
            "is_exact": counter.is_exact,
            "groups": [
                {
                    "sha256_begins": group.copies.key,
                    "rows": group.copies.rows,
                    "at_most": group.copies.rows + counter.undercount,
                    "first_row": group.copies.first,
                    "cell": group.shown.cell if group.shown else None,
                }
                for group in self.groups
            ],
        }


_OWN = {"model", "holder", "rows_per_second", "seconds_left", "failed", "hosts"}
"""What a report tells at more length than `Status.json`."""


def _failures(counts: Counter[str], most: int) -> list[Failures]:
    return [Failures(name, rows) for name, rows in counts.most_common(most) if rows > 0]


def _json(failures: Failures, name: str) -> Json:
    return {
        name: printable(failures.name, _NAME),
        "rows": failures.rows,
        "examples": [asdict(example) for example in failures.examples],
    }


class _Shards:
    """A job's shards. unread: how many could not be read so far."""

    def __init__(self, folder: Path, entries: Sequence[Entry], root: Path | None) -> None:
        self._folder, self._entries, self._root = folder, entries, root
        self._firsts = [entry.first for entry in entries]
        self.unread = 0

    def copies(self, most_files: int) -> tuple[CopyCounter, int]:
        """Counts equal images in at most some shards; and how many were read."""
        counter, count = CopyCounter(), 0
        for entry in evenly(self._entries, most_files):
            try:
                for keys, rows in image_hashes(self._folder / entry.file):
                    counter.add(keys, rows)
                count += 1
            except RequestError:
                self.unread += 1
        return counter, count

    def images(self, count: int) -> list[Shown]:
        """Images of some good rows, from all over the job."""
        each = -(-count // max(min(count, len(self._entries)), 1))
        rows = (row for e in evenly(self._entries, count) for row in self._good(e, each))
        shown = (one for one in map(self._as_shown, rows) if one.image)
        return list(islice(shown, count))

    def shown(self, number: int) -> Shown | None:
        """A row by its number."""
        entry = self._entries[bisect(self._firsts, number) - 1]
        try:
            rows = shard_rows(self._folder / entry.file, skipped=max(number - entry.first, 0))
            row = next(rows, None)
        except RequestError:
            return None
        return self._as_shown(row) if row else None

    def _as_shown(self, row: ShardRow) -> Shown:
        cell = cell_of(row)
        return Shown(row.number, cell, thumbnail(self._root, row, cell))

    def _good(self, entry: Entry, count: int) -> list[ShardRow]:
        """Some good rows with an image, at the beginning of a shard."""
        found: list[ShardRow] = []
        try:
            for row in shard_rows(self._folder / entry.file):
                if row.code is None and row.image:
                    found.append(row)
                if len(found) == count:
                    break
        except RequestError:
            return []
        return found
