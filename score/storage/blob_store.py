"""Small values by key in one file, of which the latest are kept: a cache on disk, by SQLite.

Several processes may use one file. It holds what can be computed again, so nothing that goes wrong
with it ends a job: a damaged file is made anew, and one that cannot be used, or whose disk is
nearly full, is done without.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

LEAST_FREE = 256 * 2**20
"""Bytes of the disk that are left to others."""

# Values in memory before they are written together. Keys are hashes, so that each value changes
# another page of the table's index: the more at once, the more of them share a page.
_UNWRITTEN = 4000
_LATEST = 2.0
"""Seconds after which values are written though they are few, and others' values are looked for."""
_TOGETHER = 250  # of them that one statement inserts: SQLite takes 999 parameters at least
_PATIENCE = 10.0  # seconds that another process is waited for
_OVERHEAD = 100  # bytes that a value takes beside its own, in the table and its index
_SLACK = 1.1  # times the bound before older values are removed, many at a time
_SCHEMA = """
create table if not exists blobs (
  number integer primary key autoincrement, key blob not null unique, value blob not null
)
"""

_OTHERS = (TypeError, struct.error)  # keys or sizes of another type than ours
_INSERT = "insert or ignore into blobs (key, value) values"


class BlobStore:
    """Values by key. Use it as a context manager. Safe to share between threads.

    Values are written by a thread of its own, when `save` asks for it, many are there, or one comes
    after some seconds. Whether a key may be there at all is asked of a filter in memory, since
    asking SQLite, which lets other threads of Python go on meanwhile, has to wait for them
    afterwards. The filter learns of what other processes have written every few seconds.
    """

    def __init__(self, file: Path, most_bytes: int, *, is_own: bool = False) -> None:
        """most_bytes: of the values; older ones are removed beyond it. is_own: whether nobody else
        needs the file, so that it is removed where it cannot be used."""
        self._file, self._most, self._is_own = file, most_bytes, is_own
        self._lock = threading.RLock()  # of all below
        self._new: dict[bytes, bytes] = {}
        self._unwritten: dict[bytes, bytes] = {}  # which the thread is writing
        self._filter = BloomFilter()
        self._size = 0  # of the values, about
        self._last = self._version = 0  # of the values in the filter, of the file that has them
        self._to_write = self._to_look = time.monotonic() + _LATEST
        self._connection: sqlite3.Connection | None = None
        self._writer = ThreadPoolExecutor(1, "blob-store")
        self._writing: Future[None] | None = None
        self._turn = threading.Lock()  # of whoever hands values to that thread
        self._tried(self._open)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None for a key that is not there."""
        if time.monotonic() >= self._to_look:
            self._look()
        if key not in self._filter:
            return None
        with self._lock:
            if (value := self._new.get(key) or self._unwritten.get(key)) is not None:
                return value
            return self._tried(lambda: self._select(key))

    def put(self, key: bytes, value: bytes) -> None:
        """Keeps a value, which never changes: one that is there stays."""
        with self._lock:
            if self._connection is None:
                return
            self._new[key] = value
            self._filter.add(key)
            is_full = len(self._new) >= _UNWRITTEN
            if not is_full and time.monotonic() < self._to_write:
                return
        self._begin_to_write(_UNWRITTEN if is_full else 1)

    def save(self) -> None:
        """Waits until all values are in the file, where a killed process leaves them."""
        self._begin_to_write(1)
        with self._turn:
            if self._writing:
                self._writing.result()

    def _begin_to_write(self, least: int) -> None:
        with self._turn:
            if self._writing:
                self._writing.result()  # so that no more than two portions are in memory
            with self._lock:
                if len(self._new) < least:
                    return  # another thread has handed them over
                self._unwritten, self._new = self._new, {}
                self._to_write = time.monotonic() + _LATEST
            self._writing = self._writer.submit(self._write)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._begin_to_write(1)
        self._writer.shutdown()
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    def _tried(self, action: Callable[[], T]) -> T | None:
        """What an action gives; None where the file cannot be used."""
        try:
            return action()
        except (sqlite3.Error, OSError, *_OTHERS) as error:
            with self._lock:
                if _is_damaged(error) and self._remade():
                    log.warning("%s was damaged, and begins anew: %s", self._file, error)
                else:
                    log.warning("%s cannot be used, and is done without: %s", self._file, error)
                    self._give_up()
            return None

    def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        self._new, self._unwritten = {}, {}
        with suppress(sqlite3.Error):
            if connection:
                connection.close()
        if self._is_own:
            with suppress(OSError):
                self._unlink()

    def _unlink(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + ending).unlink(missing_ok=True)

    def _check_room(self) -> None:
        """Raises OSError where the disk is nearly full: what can be computed again makes way."""
        if shutil.disk_usage(self._file.parent).free < LEAST_FREE:
            raise OSError(f"less than {LEAST_FREE // 2**20} MiB are free on its disk")

    def _remade(self) -> bool:
        try:
            if self._connection:
                self._connection.close()
            self._unlink()
            self._open()
        except (sqlite3.Error, OSError, *_OTHERS):
            return False
        return True

    def _open(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._check_room()
        if not self._file.exists():  # else SQLite would make it as readable as the umask allows
            os.close(os.open(self._file, os.O_CREAT | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(
            self._file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        # A crash of the machine may damage the file, which then begins anew; a killed process, not.
        # Pages have several values each.
        for setting in (
            *("page_size = 16384", "journal_mode = wal", "synchronous = off"),
            "cache_size = -16384",
        ):
            connection.execute(f"pragma {setting}")
        connection.execute(_SCHEMA)
        count, length = connection.execute(
            "select count(*), coalesce(sum(length(value)), 0) from blobs"
        ).fetchone()
        self._size = length + count * _OVERHEAD
        self._last = self._version = 0
        self._learn(connection)
        self._connection = connection

    def _look(self) -> None:
        """Looks for values that other processes have written."""
        with self._lock:
            self._to_look = time.monotonic() + _LATEST
            if connection := self._connection:
                self._tried(lambda: self._learn(connection))

    def _learn(self, connection: sqlite3.Connection) -> None:
        """Adds the keys to the filter that have come since the last time."""
        (version,) = connection.execute("pragma data_version").fetchone()
        if version == self._version:  # nobody else has written
            return
        self._version = version
        rows = connection.execute("select number, key from blobs where number > ?", (self._last,))
        while some := rows.fetchmany(_UNWRITTEN):
            for number, key in some:
                self._filter.add(key)
                self._last = max(self._last, number)

    def _select(self, key: bytes) -> bytes | None:
        if self._connection is None:
            return None
        found = self._connection.execute("select value from blobs where key = ?", (key,)).fetchone()
        return found[0] if found and isinstance(found[0], bytes) else None

    def _write(self) -> None:
        self._tried(self._insert)
        with self._lock:
            self._unwritten = {}

    def _insert(self) -> None:
        if self._connection is None or not self._unwritten:
            return
        self._check_room()
        with _transaction(self._connection):
            # Several rows a statement: after each statement SQLite waits for Python's lock.
            values = chain.from_iterable(self._unwritten.items())
            while some := list(islice(values, 2 * _TOGETHER)):
                places = ", ".join(["(?, ?)"] * (len(some) // 2))
                self._connection.execute(f"{_INSERT} {places}", some)
            self._size += sum(len(value) + _OVERHEAD for value in self._unwritten.values())
            if self._size > _SLACK * self._most:
                self._remove_oldest(self._connection)

    def _remove_oldest(self, connection: sqlite3.Connection) -> None:
        count, length, last = connection.execute(
            "select count(*), coalesce(sum(length(value)), 0), max(number) from blobs"
        ).fetchone()
        self._size = length + count * _OVERHEAD
        if self._size > self._most:  # else another process has removed them
            kept = int(count * self._most / self._size)
            connection.execute("delete from blobs where number <= ?", (last - kept,))
            self._size = self._most


class _transaction:
    """A block whose changes are written together, or not at all."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("begin immediate")

    def __exit__(self, kind: object, *_: object) -> None:
        self._connection.execute("commit" if kind is None else "rollback")


def _is_damaged(error: Exception) -> bool:
    """Whether a file is no database, a broken one, or one that holds something else: SQLite has no
    kind of error of its own."""
    return type(error) is sqlite3.DatabaseError or isinstance(error, _OTHERS)


class BloomFilter:
    """A set of keys in fixed memory, 16 MiB, which may take another key for one of its own: one of
    ten thousand with a million keys. (B. Bloom, Space/time trade-offs in hash coding, 1970.)

    Keys are hashes of at least 12 bytes.
    """

    _MASK = 2**27 - 1  # bits
    _numbers = struct.Struct("<III").unpack_from  # of a key, each of which names a bit

    def __init__(self) -> None:
        self._bits = bytearray((self._MASK + 1) // 8)

    def add(self, key: bytes) -> None:
        """Adds a key."""
        bits = self._bits
        for number in self._numbers(key):
            bit = number & self._MASK
            bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, key: bytes) -> bool:
        bits = self._bits
        for number in self._numbers(key):
            bit = number & self._MASK
            if not bits[bit >> 3] >> (bit & 7) & 1:
                return False
        return True
