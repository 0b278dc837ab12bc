"""Whether finished shards still hold the bytes that were written, by the SHA-256 in the ledger.

A long job has more shards than can be read before it goes on: those of earlier runs are read beside
its work, a small part of the time, and the rest at its end, before it says that it is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from score.job_folder import ledger
from score.job_folder.folder import JobFolder
from score.job_folder.ledger import Entry
from score.storage.digest import sha256_of

log = logging.getLogger(__name__)

_REST = 9  # times as long as a file took: a tenth of one core, while the job needs them
OTHER_BYTES = "its bytes are not those that were written (SHA-256)"


class Inspection:
    """Reads the shards that a job has, in a thread of its own. Use it as a context manager."""

    def __init__(self, job: JobFolder) -> None:
        self._is_awaited, self._is_over = threading.Event(), False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inspection")
        self._damaged = self._thread.submit(self._inspected, job.path, list(job.ledger.done()))

    def damaged(self) -> list[Entry]:
        """The shards that are damaged. Waits until all have been read. Raises OSError for one that
        cannot be read."""
        self._is_awaited.set()
        if not self._damaged.done():
            log.info("the finished files of earlier runs are compared with their SHA-256")
        return self._damaged.result()

    def _inspected(self, folder: Path, entries: Sequence[Entry]) -> list[Entry]:
        damaged = []
        for entry in entries:
            began = time.monotonic()
            if not is_as_written(folder, entry):
                damaged.append(entry)
            self._is_awaited.wait(_REST * (time.monotonic() - began))
            if self._is_over:
                break
        return damaged

    def __enter__(self) -> Inspection:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._is_awaited.set()
        self._thread.shutdown()


def is_as_written(folder: Path, entry: Entry) -> bool:
    """Whether a shard holds the bytes that the ledger tells; True where it does not tell. Raises
    OSError for one that is there and cannot be read."""
    file = folder / entry.file
    if not entry.sha256:
        return file.exists()
    try:
        return entry.sha256 == sha256_of(file)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def damaged_files(folder: Path) -> Iterator[str]:
    """The shards of a job that are damaged or missing, below its folder; another process may be
    writing into it. Reads all of them. Raises RequestError, OSError."""
    for entry in _entries(folder).values():
        if not is_as_written(folder, entry):
            # A running job may have written it again meanwhile.
            latest = _entries(folder).get(entry.first)
            if latest is not None and not is_as_written(folder, latest):
                yield latest.file


def _entries(folder: Path) -> dict[int, Entry]:
    entries = {entry.first: entry for entry in ledger.read(folder)}
    return {entry.first: entry for entry in ledger.in_order(entries)}
