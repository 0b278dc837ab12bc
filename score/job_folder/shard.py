"""A shard that is being written, and what the ledger is to say of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from score.contract.rows import IMAGE, Record
from score.errors import HostDown
from score.fetch.host_times import HostTime, HostTimes, longest, merged
from score.fetch.http_status import status_in
from score.job_folder.ledger import Entry
from score.storage.digest import sha256_of
from score.tables.lines import ALL_TEXT, Line, Types
from score.tables.shard_writer import IMAGE_COLUMN, ShardWriter
from score.type_aliases import VectorType

_HOSTS = 100  # that a ledger's line names
_SLOWEST = 20  # hosts, too
_LONGEST_HOST = 253  # characters of a name in the DNS (RFC 1035); longer ones are none


class Shard:
    """A shard that is being written: rows of consecutive numbers."""

    def __init__(
        self,
        folder: Path,
        file: str,
        first: int,
        columns: Sequence[str],
        dimension: int,
        about: Mapping[str, str] = MappingProxyType({}),
        *,
        vectors: VectorType,
        image: str = IMAGE,
        types: Types = ALL_TEXT,
    ) -> None:
        """file: its name below the job's folder. first: number of its first row. image: what the
        input calls its column of images. types: of the columns."""
        self._path, self._file = folder / file, file
        told = about if image == IMAGE else {**about, IMAGE_COLUMN: image}
        self._writer = ShardWriter(self._path, columns, dimension, told, types, vectors=vectors)
        self._image = columns.index(image) if image in columns else None
        self.first, self.rows = first, 0
        self._failed = Counter[str]()
        self._statuses = Counter[str]()
        self._images: list[str | None] = []  # cells that could not be fetched or decoded
        self._retryable = self._unasked = 0
        self._last: Line | None = None
        self._began = time.monotonic()
        self._is_sound = True

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.monotonic() - self._began

    def add(self, line: Line, record: Record, sha256: str | None) -> None:
        """Adds the row after those that it has."""
        self._is_sound = False  # an interrupt may come between any two of these steps
        self._writer.write(self.first + self.rows, line.kept, record, sha256)
        self.rows += 1
        self._last = line
        if error := record.error:
            self._failed[error.code] += 1
            self._retryable += error.retryable
            self._unasked += isinstance(error, HostDown)
            if status := status_in(error.message):
                self._statuses[status] += 1
            if self._image is not None and error.column == IMAGE:
                cell = line.kept[self._image]
                self._images.append(cell if isinstance(cell, str) else None)
        self._is_sound = True

    def finish(self, times: HostTimes) -> Entry | None:
        """Gives the file its name. None, and no file, where adding a row was interrupted.

        times: of the requests since the shard before.
        """
        if not self._is_sound or self._last is None:
            self.drop()
            return None
        self._writer.__exit__(None, None, None)
        return Entry(
            first=self.first,
            rows=self.rows,
            file=self._file,
            bytes=self._path.stat().st_size,
            sha256=sha256_of(self._path),
            mark=self._last.mark,
            position=self._last.position,
            failed=self._failed,
            hosts=counted_hosts(self._images),
            statuses=self._statuses,
            slowest=slowest_hosts(times),
            retryable=self._retryable,
            unasked=self._unasked,
            seconds=round(self.seconds, 3),
        )

    def drop(self) -> None:
        """Removes what was written."""
        self._writer.__exit__(RuntimeError, None, None)


def counted_statuses(messages: Iterable[str]) -> Counter[str]:
    """The HTTP statuses that errors' messages name."""
    return Counter(filter(None, map(status_in, messages)))


def slowest_hosts(
    times: HostTimes, earlier: Mapping[str, HostTime] = MappingProxyType({})
) -> dict[str, HostTime]:
    """The requests since the last call of this to the hosts that took longest, as a ledger has
    them. earlier: of the same shard."""
    whole = longest(merged(earlier, times.take(_SLOWEST)), _SLOWEST)
    return {
        host: HostTime(time.requests, round(time.seconds, 3), round(time.longest, 3))
        for host, time in whole.items()
        if len(host) <= _LONGEST_HOST
    }


def counted_hosts(images: Iterable[str | None]) -> Counter[str]:
    """The hosts that image cells name, and how often: the most frequent ones."""
    hosts = Counter(filter(None, map(host_of, images)))
    return Counter(dict(hosts.most_common(_HOSTS)))


def host_of(cell: str | None) -> str:
    """The host that an image cell names; empty for none."""
    try:
        host = urlsplit((cell or "")[:2048].strip()).hostname or ""
        return host if len(host) <= _LONGEST_HOST else ""
    except ValueError:
        return ""
