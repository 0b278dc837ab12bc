"""`ledger.jsonl`: which rows of a job are done, in which file. A line for each file.

A line is appended when its file is complete, and flushed to disk; nothing is rewritten. A later
line replaces an earlier one that begins with the same row; one of no rows says that the earlier
one's file was lost. A kill may cut the last line: it is dropped, and its rows are done again.

Where several processes work on a job, lines come in any order: rows may be missing between others.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from score.errors import RequestError
from score.fetch.host_times import HostTime
from score.tables.lines import Mark
from score.type_aliases import Json
from score.wording.json_faults import FAULTS, fault_of
from score.wording.quoting import quoted

NAME = "ledger.jsonl"
SHARDS = "shards"
"""The folder of the files, below the job's."""
FORCE_NEW = "--force-new starts anew, and removes what is there"

_LONGEST = 2**20  # bytes of a line
_LARGEST = 2**63  # of a number
_STATUS = re.compile(r"[1-9][0-9]{2}")
_FILE = re.compile(rf"{SHARDS}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,200}}")


@dataclass(frozen=True, slots=True)
class Entry:
    """Rows that are done.

    first: number of the first row in the input, from 0. file: below the job's folder. bytes: of it.
    mark: where the input goes on after them. position: the same, in the unit of `Lines.size`.
    failed: error code → rows. hosts: host → rows whose image could not be fetched from it.
    statuses: HTTP status → rows whose image's server answered with it. slowest: host → the requests
    since the file before, of the hosts that took longest.
    retryable: failed rows that may succeed another time. unasked: those of them whose host did not
    answer other rows, and was not asked. seconds: that they took; where several processes work on a
    job, those since the one before was complete. sha256: of the file's bytes, in hexadecimal; empty
    in a ledger of earlier versions.
    """

    first: int
    rows: int
    file: str
    bytes: int
    mark: Mark
    position: int
    failed: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest: Mapping[str, HostTime] = field(default_factory=dict)
    retryable: int = 0
    unasked: int = 0
    seconds: float = 0.0
    sha256: str = ""

    @property
    def end(self) -> int:
        """The number of the row after them."""
        return self.first + self.rows

    def json(self) -> Json:
        """As JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """From JSON. Raises KeyError, TypeError, ValueError, AttributeError."""
        seconds = _seconds(content["seconds"])
        return cls(
            first=number(content["first"]),
            rows=number(content["rows"]),
            file=_below(content["file"]),
            bytes=number(content["bytes"]),
            mark=tuple(map(number, content["mark"])),
            position=number(content["position"]),
            failed=_counter(content["failed"]),
            hosts=_counter(content["hosts"]),
            statuses=_statuses(content.get("statuses", {})),
            slowest={
                str(host): HostTime(number(requests), _seconds(whole), _seconds(longest))
                for host, (requests, whole, longest) in content.get("slowest", {}).items()
            },
            retryable=number(content["retryable"]),
            unasked=number(content["unasked"]),
            seconds=seconds,
            sha256=str(content.get("sha256", "")),
        )


def _counter(content: Mapping[str, object]) -> Counter[str]:
    return Counter({str(name): number(count) for name, count in content.items()})


def _statuses(content: Mapping[str, object]) -> Counter[str]:
    if strange := [status for status in content if not _STATUS.fullmatch(status)]:
        raise ValueError(f"{quoted(strange[0])} is no HTTP status")
    return _counter(content)


def _seconds(value: object) -> float:
    seconds = float(value)  # type: ignore[arg-type]
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds: {seconds}")
    return seconds


def number(value: object) -> int:
    """A count, as JSON has it. Raises ValueError."""
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(f"{quoted(value)} is no count")
    return value


def _below(file: object) -> str:
    """A file's name, which a job removes where the file is damaged: it must not lead elsewhere."""
    if not isinstance(file, str) or not _FILE.fullmatch(file):
        raise ValueError(f"{quoted(file)} is no file of {SHARDS}/")
    return file


class Ledger:
    """A job's ledger, open for appending. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there, and drops a line that was cut. Raises RequestError, OSError."""
        self.entries = {entry.first: entry for entry in read(folder)}
        self._file = folder / NAME
        self._stream = self._file.open("ab", buffering=0)
        if (size := _whole(self._file)) < self._stream.tell():
            self._stream.truncate(size)

    def add(self, entry: Entry) -> None:
        """Appends a line, and waits until the disk has it. Raises OSError."""
        line = json.dumps(entry.json(), separators=(",", ":")).encode() + b"\n"
        if self._stream.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file))
        os.fsync(self._stream.fileno())
        self.entries.pop(entry.first, None)  # the order is that of time
        self.entries[entry.first] = entry

    def lost(self, entry: Entry) -> None:
        """Appends a line that says that an entry's rows are to be done again. Raises OSError."""
        none = Counter[str]()
        lost = replace(entry, rows=0, bytes=0, failed=none, hosts=none, statuses=none, retryable=0)
        self.add(replace(lost, sha256=""))

    def done(self) -> Iterator[Entry]:
        """The entries by the order of their rows, between which some may be missing."""
        return in_order(self.entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def read(folder: Path) -> Iterator[Entry]:
    """The lines of a ledger, which another process may be writing; none where there is no ledger.

    Raises RequestError for a damaged one, OSError.
    """
    try:
        stream = (folder / NAME).open("rb")
    except FileNotFoundError:
        return
    with stream:
        number = 0
        while (line := stream.readline(_LONGEST)).endswith(b"\n"):
            number += 1
            try:
                yield Entry.parse(json.loads(line))
            except FAULTS as error:
                raise _damaged(folder, number, fault_of(error)) from error
        if len(line) == _LONGEST:  # else it is being written, or was cut
            raise _damaged(folder, number + 1, "it has no end")


def _damaged(folder: Path, line: int, fault: str) -> RequestError:
    return RequestError(
        f"{folder / NAME}, line {line}, is damaged: {fault}. Remove that line, and the job's "
        f"command does its rows again; or {FORCE_NEW}"
    )


def in_order(entries: Mapping[int, Entry]) -> Iterator[Entry]:
    """Those of some entries, by their first row, that have rows, in the order of these."""
    return (entries[first] for first in sorted(entries) if entries[first].rows)


def _whole(file: Path) -> int:
    """The bytes of the lines that are whole."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        start = max(0, size - _LONGEST)
        stream.seek(start)
        return start + stream.read().rfind(b"\n") + 1
