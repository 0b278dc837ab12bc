"""Some failed rows for each error code, and for each host that images could not be fetched from.

Which shards have such rows is in the ledger, so few are read, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from score.contract.rows import IMAGE, TEXT
from score.errors import RequestError
from score.fetch.urls import start
from score.job_folder.ledger import Entry
from score.job_folder.shard import host_of
from score.tables.shard_reader import ShardRow, shard_rows

MOST = 5
"""Examples of each."""

_CELL, _MESSAGE = 120, 300  # characters that are shown


@dataclass(frozen=True, slots=True)
class Example:
    """A row that failed. cell: how the one begins that is at fault, without secrets."""

    row: int
    cell: str
    message: str


@dataclass(slots=True)
class Failures:
    """Rows that failed by one code, or at one host. name: of it. rows: how many."""

    name: str
    rows: int
    examples: list[Example] = field(default_factory=list)
    _candidates: list[Entry] = field(default_factory=list)

    @property
    def _each(self) -> int:
        """How many examples a shard gives: not all should be of one."""
        return -(-MOST // max(len(self._candidates), 1))


def add_examples(
    folder: Path,
    entries: Sequence[Entry],
    codes: Sequence[Failures],
    hosts: Sequence[Failures],
    most_files: int,
) -> int:
    """Fills in the examples, from at most some shards. Returns how many could not be read."""
    for failures in codes:
        failures._candidates = _spread([e for e in entries if e.failed.get(failures.name)], MOST)
    for failures in hosts:
        failures._candidates = _spread([e for e in entries if e.hosts.get(failures.name)], MOST)
    seen: set[int] = set()
    unread = 0
    for failures in (*codes, *hosts):
        for entry in failures._candidates:
            if len(failures.examples) >= MOST or len(seen) >= most_files:
                break
            if entry.first not in seen:
                seen.add(entry.first)
                unread += not _take(folder / entry.file, entry, codes, hosts)
    for failures in (*codes, *hosts):
        failures.examples.sort(key=lambda example: example.row)
    return unread


def _take(file: Path, entry: Entry, codes: Sequence[Failures], hosts: Sequence[Failures]) -> bool:
    """Adds examples of a shard to all that lack some. Returns whether it could be read."""
    by_code = {f.name: _Wanted(f, entry.failed[f.name]) for f in codes if entry.failed[f.name]}
    by_host = {f.name: _Wanted(f, entry.hosts[f.name]) for f in hosts if entry.hosts[f.name]}
    wanted = [*by_code.values(), *by_host.values()]
    try:
        for row in shard_rows(file, failed=True):
            for one in (by_code.get(row.code or ""), by_host.get(_host(row))):
                if one is not None:
                    one.add(row)
            if not any(one.left for one in wanted):
                break
    except RequestError:
        return False
    return True


class _Wanted:
    """The examples that a shard still has to give. left: how many."""

    def __init__(self, failures: Failures, there: int) -> None:
        self._failures = failures
        self.left = min(failures._each, MOST - len(failures.examples), there)

    def add(self, row: ShardRow) -> None:
        """Takes a row, if one is wanted."""
        if self.left > 0:
            self.left -= 1
            self._failures.examples.append(example(row))


def example(row: ShardRow) -> Example:
    """A row as a report shows it."""
    return Example(row.number, cell_of(row), printable(row.message or "", _MESSAGE))


def cell_of(row: ShardRow) -> str:
    """How the cell begins that a row's error is about, or else its image, or its text."""
    about_text = (row.message or "").startswith(f"{TEXT}: ")
    if row.image and not about_text:
        return start(row.image, _CELL)
    text = row.text or ""
    return start(text, _CELL) if "://" in text[:_CELL] else printable(text, _CELL)


def printable(text: str, most: int = _CELL) -> str:
    """The start of a text that may be anything, without characters that change how others show."""
    shown = text if len(text) <= most else text[:most] + "…"
    return "".join(c if c.isprintable() else "�" for c in shown)


def evenly(entries: Sequence[Entry], most: int) -> Iterator[Entry]:
    """At most so many entries, at equal distances."""
    count = min(most, len(entries))
    return (entries[(2 * at + 1) * len(entries) // (2 * count)] for at in range(count))


def _spread(entries: Iterable[Entry], most: int) -> list[Entry]:
    return list(evenly(list(entries), most))


def _host(row: ShardRow) -> str:
    return host_of(row.image) if (row.message or "").startswith(f"{IMAGE}: ") else ""
