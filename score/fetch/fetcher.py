"""URL, `data:` URI, base64 or path → bytes. The network's only door.

A download goes: place at the host → one of `fetch_workers` places → request → room for its body →
body. Retries and redirects give their places up in between, so that what waits holds up nobody.

Knows nothing of images.
"""

from __future__ import annotations

import email.utils
import http.client
import ssl
import threading
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import urllib3
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    LocationValueError,
    NewConnectionError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url

from score.contract.rows import looks_missing
from score.errors import BadBase64, BadType, BadUrl, FetchFailed, FetchTimeout, RowError
from score.fetch import cells, content_encoding, urls
from score.fetch.byte_budget import Room
from score.fetch.cells import check_size
from score.fetch.connections import Connections, causes, proxy_refusal
from score.fetch.deadline import Deadline
from score.fetch.framing import Malformed
from score.fetch.host_concurrency import Host, Hosts
from score.settings import Settings

_READ = 64 * 1024
_BODIES = 16  # of the largest size may be in memory at a time; of smaller ones more
_IMAGES = frozenset({200, 203})  # 203: a proxy has changed the body
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
_SHEDDING = frozenset({429, 503})
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Fetcher:
    """Turns what an image cell says into the image's bytes. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connections = Connections(settings)
        self._hosts = Hosts(settings.per_host, longest_pause=settings.row_deadline / 2)
        self._places = threading.Semaphore(settings.fetch_workers)
        self._room = Room(_BODIES * settings.max_image_bytes)

    def holding(self) -> AbstractContextManager[None]:
        """A block to whose end the memory of what this thread fetches inside counts as used."""
        return self._room.holding()

    def fetch(self, image: object, root: Path | None = None, until: float | None = None) -> bytes:
        """The bytes that a non-empty image cell stands for.

        `root`: for batch jobs, the folder below which a cell may also name a file. `until`: the
        `time.monotonic()` at which the whole request gives up. Raises RowError.
        """
        limit = self._settings.max_image_bytes
        if isinstance(image, (bytes, bytearray, memoryview)):
            data = bytes(image)
            check_size(len(data), limit)
            return data
        if not isinstance(image, str):
            raise BadType(f"must be a URL, base64 or a data: URI, not {type(image).__name__}")
        cell = image.strip()
        deadline = Deadline(self._settings.row_deadline, until)
        with self.holding():
            if urls.is_web(cell):
                return self._download(cell, deadline)
            return self._inline(cell, root, deadline)

    def _inline(self, cell: str, root: Path | None, deadline: Deadline) -> bytes:
        """A cell that needs no network."""
        limit = self._settings.max_image_bytes
        if cells.is_data_uri(cell):
            self._room.reserve(min(len(cell), limit), deadline)
            return cells.from_data_uri(cell, limit)
        if root and (file := cells.file_below(root.resolve(), cell)):
            self._room.reserve(limit, deadline)
            data = cells.from_file(file, limit)
            self._room.release_free_memory(limit - len(data))
            return data
        if looks_missing(cell):
            raise BadBase64(f"{cell!r} looks like a missing value: leave the cell empty instead")
        self._room.reserve(min(len(cell), limit), deadline)
        try:
            return cells.from_base64(cell, limit)
        except BadBase64 as error:
            if root and cells.looks_like_a_path(cell):
                raise BadBase64(f"no file below the table's folder, and {error.message}") from None
            raise

    def _download(self, url: str, deadline: Deadline) -> bytes:
        """GET with retries, all of it within one deadline."""
        wait = self._settings.retry_wait
        for tries_left in range(self._settings.max_retries, -1, -1):
            try:
                return self._follow(url, deadline)
            except RowError as error:
                pause = max(wait, error.retry_after if isinstance(error, _Refused) else 0.0)
                if not error.retryable or not tries_left or pause >= deadline.left():
                    raise
            time.sleep(pause)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _follow(self, url: str, deadline: Deadline) -> bytes:
        for _ in range(self._settings.max_redirects + 1):
            target = urls.parse(url)
            with (
                self._hosts.place(urls.server(target), deadline) as host,
                deadline.place(self._places),
            ):
                found = self._get(target, host, deadline)
            if isinstance(found, bytes):
                return found
            if found.pause >= deadline.left():
                raise FetchFailed(
                    f"{urls.where(target)} redirects after {found.pause:.0f} s", retryable=True
                )
            time.sleep(found.pause)
            url = found.url
        raise FetchFailed(f"more than {self._settings.max_redirects} redirects")

    def _get(self, target: Url, host: Host, deadline: Deadline) -> bytes | _Redirect:
        """One request: its body, or where it leads. Tells the host how it went."""
        began = time.monotonic()
        try:
            with self._connections.get(target, deadline) as answer:
                pause = _seconds(answer.headers.get("Retry-After", ""))
                if answer.status in _SHEDDING:
                    host.shed(began, pause)
                else:
                    host.answered(began)
                if answer.status in _REDIRECTS and "Location" in answer.headers:
                    return _Redirect(_location(answer, target), pause)
                return self._body(answer, target, pause, deadline)
        except FetchTimeout:
            host.shed(began)
            raise
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            failure = _translate(error, target, self._settings, deadline)
            if failure.retryable:
                host.shed(began)
            raise failure from error

    def _body(
        self, answer: BaseHTTPResponse, target: Url, pause: float, deadline: Deadline
    ) -> bytes:
        if answer.status not in _IMAGES:
            raise _refusal(answer.status, target, pause)
        limit = self._settings.max_image_bytes
        coding = answer.headers.get("Content-Encoding", "")
        declared = answer.headers.get("Content-Length")
        check_size(int(declared or 0), limit)
        reserved = limit if coding or declared is None else int(declared)
        self._room.reserve(reserved, deadline)
        kept = 0
        try:
            body = bytearray()
            while chunk := answer.read1(_READ):
                body += chunk
                check_size(len(body), limit)
            data = content_encoding.decoded(bytes(body), coding, limit)
            check_size(len(data), limit)
            kept = len(data)
        finally:
            # All of it after a failure: rows that wait for a retry, or for more room, must hold
            # none that others wait for.
            self._room.release_free_memory(reserved - kept)
        return data


class _Refused(FetchFailed):
    """A status that brings no image, with the pause the server asks for."""

    def __init__(self, message: str, *, retryable: bool, retry_after: float) -> None:
        super().__init__(message, retryable=retryable)
        self.retry_after = retry_after


class _Redirect:
    """Where an answer leads, and how many seconds later."""

    def __init__(self, url: str, pause: float) -> None:
        self.url, self.pause = url, pause


def _location(answer: BaseHTTPResponse, target: Url) -> str:
    """Raises FetchFailed, BadUrl."""
    given = set(answer.headers.getlist("Location"))
    if len(given) > 1:
        raise FetchFailed(f"{urls.where(target)} redirects to several places")
    (location,) = given
    if not location:
        raise FetchFailed(f"{urls.where(target)} redirects to nowhere")
    return urls.redirected(target, location)


def _refusal(status: int, target: Url, pause: float) -> RowError:
    if status in _REDIRECTS:
        return FetchFailed(f"{urls.where(target)} redirects to nowhere")
    reason = http.client.responses.get(status, "")
    # A status that nobody has defined is as 500, one above 599, too (RFC 9110, 15 and 15.6).
    unknown = status >= 500 and status not in http.client.responses
    return _Refused(
        f"{urls.where(target)} answered {status} {reason}".rstrip(),
        retryable=status in _TRY_AGAIN or unknown,
        retry_after=pause,
    )


# -- foreign errors, translated at the border --------------------------------------------------

_UNREADABLE = (LocationParseError, LocationValueError, UnicodeError, http.client.InvalidURL)


def _translate(error: Exception, target: Url, settings: Settings, deadline: Deadline) -> RowError:
    """What a failure inside urllib3, ssl or the socket layer means for the row."""
    where = urls.where(target)
    if isinstance(error, _UNREADABLE):
        return BadUrl(f"cannot be read as a URL: {where}")
    if status := proxy_refusal(error):
        retryable = status[:3].isdecimal() and int(status[:3]) in _TRY_AGAIN
        return FetchFailed(f"the proxy answered {status} for {where}", retryable=retryable)
    for cause in causes(error):
        if isinstance(cause, NewConnectionError):  # urllib3 counts it among its timeouts
            continue
        if isinstance(cause, Malformed):
            return FetchFailed(f"{where} {cause}", retryable=cause.retryable)
        if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
            if deadline.left() <= 0:
                return FetchTimeout(f"{where} took more than {settings.row_deadline:g} s")
            return FetchTimeout(f"{where} did not answer in time")
        if isinstance(cause, ssl.SSLError | SSLError):
            return FetchFailed(f"TLS with {where} failed: {_reason(error)}")
        if isinstance(cause, ConnectionRefusedError):
            who = "the proxy" if settings.proxy else where
            return FetchFailed(f"{who} refused the connection", retryable=True)
    if isinstance(error, NewConnectionError):
        return FetchFailed(f"cannot connect to {where}", retryable=True)
    return FetchFailed(f"{where} broke off or did not speak HTTP", retryable=True)


def _reason(error: Exception) -> str:
    """What OpenSSL found wrong. urllib3 wraps its errors in some that do not say."""
    for cause in causes(error):
        if text := getattr(cause, "verify_message", "") or getattr(cause, "reason", ""):
            return str(text)[:120]
    return "handshake"


def _seconds(retry_after: str) -> float:
    """What a `Retry-After` header asks for (RFC 9110, 10.2.3); 0 where there is none."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        when = email.utils.parsedate_to_datetime(retry_after)
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
