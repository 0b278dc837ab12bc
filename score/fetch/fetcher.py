"""Image cell → bytes: a URL is downloaded, an object store's file read; base64, a `data:` URI or a
path needs no network.

Knows nothing of images.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from score.concurrency.cancellation import Cancellation
from score.contract.rows import looks_missing
from score.errors import BadBase64, BadType, FetchFailed, RowError
from score.fetch import cells, urls
from score.fetch.byte_budget import ByteBudget
from score.fetch.cells import check_size
from score.fetch.deadline import Deadline
from score.fetch.download import Downloader
from score.settings import Settings
from score.storage.remote import RemoteFile
from score.wording.quoting import quoted

_LONGEST_QUICK = 2_048  # characters of a URL; a longer one is as costly to send as a thread
_SMALLEST_IMAGE = 32  # characters of base64
_BODIES = 16  # of the largest size may be in memory at a time; more of smaller ones


class Fetcher:
    """Turns image cells into the images' bytes. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budget = ByteBudget(_BODIES * settings.max_image_bytes)
        self._downloader = Downloader(settings, self._budget)
        self.host_times = self._downloader.host_times

    def holding(self) -> AbstractContextManager[None]:
        """A block until whose end what this thread fetches inside counts as memory in use."""
        return self._budget.holding()

    def in_doubt(self) -> int:
        """Rows, of all calls, that wait for hosts that have not answered for a second."""
        return self._downloader.in_doubt()

    def is_quick(self, image: object, root: Path | None = None) -> bool:
        """Whether a cell is refused at once: a URL by rule alone, or no cell that holds an image.
        Such a cell needs no thread, which would cost more than the refusal. `root`: as of `fetch`.
        """
        if not isinstance(image, str):
            return not isinstance(image, (bytes, bytearray, memoryview, RemoteFile))
        cell = image[:_LONGEST_QUICK].strip()
        try:
            if urls.is_web(cell):
                return len(image) < _LONGEST_QUICK and self._downloader.is_refused(cell)
        except RowError:
            return True
        return root is None and len(image) < _SMALLEST_IMAGE

    def fetch(
        self,
        image: object,
        root: Path | None = None,
        until: float | None = None,
        cancellation: Cancellation | None = None,
        *,
        in_batch: bool = False,
    ) -> bytes:
        """The bytes that a non-empty image cell stands for.

        `root`: for batch jobs, the folder below which a cell may also name a file. `until`: the
        `time.monotonic()` at which the whole request gives up. `cancellation`: ends the call that
        the cell belongs to. `in_batch`: the cell may fail because its host has not answered
        others (`circuit_breaker`). Raises RowError, Cancelled, RequestTimeout.
        """
        limit = self._settings.max_image_bytes
        if isinstance(image, (bytes, bytearray, memoryview)):
            check_size(memoryview(image).nbytes, limit)
            return bytes(image)
        deadline = Deadline(self._settings.row_deadline, until, cancellation)
        if isinstance(image, RemoteFile):
            with self.holding():
                return self._stored(image, deadline)
        if not isinstance(image, str):
            hint = "; give its bytes, as in path.read_bytes()" if isinstance(image, Path) else ""
            kind = type(image).__name__
            raise BadType(f"must be a URL, base64 or a data: URI, not {kind}{hint}")
        cell = image.strip()
        with self.holding():
            if urls.is_web(cell):
                return self._downloader.download(cell, deadline, in_batch=in_batch)
            return self._inline(cell, root, deadline)

    def _stored(self, file: RemoteFile, deadline: Deadline) -> bytes:
        """A file in an object store, which its library reads within its own time limits."""
        check_size(file.size, self._settings.max_image_bytes)
        self._budget.reserve(file.size, deadline)
        try:
            return file.read()
        except OSError as error:
            raise FetchFailed(f"cannot be read: {error}", retryable=True) from None

    def _inline(self, cell: str, root: Path | None, deadline: Deadline) -> bytes:
        """A cell that needs no network."""
        limit = self._settings.max_image_bytes
        if cells.is_data_uri(cell):
            self._budget.reserve(min(len(cell), limit), deadline)
            return cells.from_data_uri(cell, limit)
        if root and (file := cells.file_below(root.resolve(), cell)):
            self._budget.reserve(limit, deadline)
            data = cells.from_file(file, limit)
            self._budget.release(limit - len(data))
            return data
        if looks_missing(cell):
            raise BadBase64(
                f"{quoted(cell)} looks like a missing value: leave the cell empty instead"
            )
        self._budget.reserve(min(len(cell), limit), deadline)
        try:
            return cells.from_base64(cell, limit)
        except BadBase64 as error:
            raise _explained(error, cell, root) from None


def _explained(error: BadBase64, cell: str, root: Path | None) -> BadBase64:
    """The error of a cell that was perhaps meant as a file's path.

    Without a root it proposes no path: the message may be for a client of a server.
    """
    if root and cells.looks_like_a_path(cell):
        return BadBase64(
            f"no such file below {root.resolve()}: {urls.start(cell, 120)}, nor is it an http(s) "
            "URL, a data: URI or base64; `score embed --root` names another folder"
        )
    if not root and cells.looks_like_a_file_name(cell):
        return BadBase64(f"{error.message}; if it names a file, send the file's bytes as base64")
    return error
