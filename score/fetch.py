"""URL, `data:` URI, base64 or path → bytes. The network's only door.

The address rule. A URL may lead only to public addresses, or to those that `allow_hosts` names.
The rule is applied where the socket is opened, to the very address it is about to connect to:
spellings (`0x7f.1`, `2130706433`), redirects and names that resolve differently the second time
make no difference, because nothing is resolved twice. Proxies from the environment are not used:
they would connect on our behalf, out of the rule's sight.

The clock rule. Every wait on the network (look-up, connect, TLS, each single read of headers or
body) is cut at the row's deadline, so a server that drips a byte a second is just a late one.

Knows nothing of pictures.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import http.client
import io
import logging
import queue
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    LocationValueError,
    NewConnectionError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from score.addresses import AddressRule
from score.errors import (
    BadBase64,
    BadType,
    BadUrl,
    BlockedHost,
    FetchFailed,
    FetchTimeout,
    RowError,
    SettingError,
    TooManyBytes,
)
from score.rows import looks_missing
from score.settings import MIB, Settings

_USER_AGENT = "clip-endpoints/0.1"
_READ = 64 * 1024
_MAX_URL = 8192
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_SECRET = re.compile(r"(?<=//)[^/?#]*@|[?#].*", re.DOTALL)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


class Fetcher:
    """Turns what an image cell says into the picture's bytes. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rule = AddressRule.of(settings.allow_hosts)
        self._slots = _Slots(settings.per_host)
        self._pools = urllib3.PoolManager(
            num_pools=64,
            maxsize=settings.per_host,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"},
            ssl_context=_trust(settings.ca_bundle),
        )
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def fetch(self, image: object, root: Path | None = None, until: float | None = None) -> bytes:
        """The bytes that a non-empty image cell stands for.

        `root`: for batch jobs, the folder below which a cell may also name a file. `until`: the
        `time.monotonic()` at which the whole request gives up. Raises RowError.
        """
        if isinstance(image, (bytes, bytearray, memoryview)):
            return self._capped(bytes(image))
        if not isinstance(image, str):
            raise BadType(f"must be a URL, base64 or a data: URI, not {type(image).__name__}")
        cell = image.strip()
        scheme = _SCHEME.match(cell)
        if scheme and scheme[1].lower() in ("http", "https"):
            return self._download(cell, until)
        if scheme:
            raise BadUrl(f"only http and https URLs are fetched, not {scheme[1].lower()}")
        if cell[:5].lower() == "data:":
            return self._capped(self._data_uri(cell))
        if root and (file := file_below(root.resolve(), cell)):
            return self._read(file)
        if looks_missing(cell):
            raise BadBase64(f"{cell!r} looks like a missing value: leave the cell empty instead")
        try:
            return self._capped(self._base64(cell))
        except BadBase64 as error:
            if root and set(cell) & set("./\\"):  # looks like a path
                raise BadBase64(f"no file below the table's folder, and {error.message}") from None
            raise

    # -- not the network ---------------------------------------------------------------------

    def _data_uri(self, uri: str) -> bytes:
        """RFC 2397: `data:[<mediatype>][;base64],<data>`."""
        header, comma, payload = uri.partition(",")
        if not comma:
            raise BadBase64("a data: URI needs a comma before its data")
        if header.lower().replace(" ", "").endswith(";base64"):
            return self._base64(urllib.parse.unquote(payload) if "%" in payload else payload)
        try:
            return urllib.parse.unquote_to_bytes(payload)
        except UnicodeEncodeError:
            raise BadBase64("a data: URI that holds half a character is not Unicode") from None

    def _base64(self, text: str) -> bytes:
        """Standard or url-safe alphabet, line breaks and missing padding allowed (RFC 4648)."""
        compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
        self._check_size(len(compact) * 3 // 4)
        try:
            return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise BadBase64(
                f"neither an http(s) URL, a data: URI nor base64: {_start(text)}"
            ) from None

    def _read(self, file: Path) -> bytes:
        try:
            with file.open("rb") as stream:
                return self._capped(stream.read(self._settings.max_image_bytes + 1))
        except OSError as error:
            raise FetchFailed(f"cannot read the file: {error.strerror}") from error

    def _capped(self, data: bytes) -> bytes:
        self._check_size(len(data))
        return data

    def _check_size(self, size: int) -> None:
        limit = self._settings.max_image_bytes
        if size > limit:
            raise TooManyBytes(f"more than {limit:,} bytes ({limit / MIB:.3g} MiB)")

    # -- the network -------------------------------------------------------------------------

    def _download(self, url: str, until: float | None) -> bytes:
        """GET with retries, all of it within one deadline."""
        clock = _Clock(self._settings.row_deadline, until)
        wait = self._settings.retry_wait
        for tries_left in range(self._settings.max_retries, -1, -1):
            try:
                return self._follow(url, clock)
            except RowError as error:
                pause = max(wait, error.retry_after if isinstance(error, _Refused) else 0.0)
                if not error.retryable or not tries_left or pause >= clock.left():
                    raise
            time.sleep(pause)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _follow(self, url: str, clock: _Clock) -> bytes:
        for _ in range(self._settings.max_redirects + 1):
            target = _parse(url)
            with self._slots.of(f"{target.host}", clock), self._opened(clock):
                try:
                    answer = self._request(target.url)
                    try:
                        if answer.status not in _REDIRECTS:
                            return self._body(answer, target)
                        location = answer.headers.get("Location")
                    finally:
                        # A body that was read to its end has already given its connection back.
                        answer.close()
                except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
                    raise _translate(error, target, self._settings, clock) from error
            if not location:
                raise FetchFailed(f"{_where(target)} redirects to nowhere")
            url = _redirected(target, location)
        raise FetchFailed(f"more than {self._settings.max_redirects} redirects")

    def _request(self, url: str) -> BaseHTTPResponse:
        timeout = urllib3.Timeout(
            connect=self._settings.connect_timeout, read=self._settings.read_timeout
        )
        return self._pools.request(
            "GET", url, redirect=False, retries=False, preload_content=False, timeout=timeout
        )

    def _body(self, answer: BaseHTTPResponse, target: urllib3.util.Url) -> bytes:
        if answer.status != 200:
            reason = http.client.responses.get(answer.status, "")
            raise _Refused(
                f"{_where(target)} answered {answer.status} {reason}".rstrip(),
                retryable=answer.status in _TRY_AGAIN,
                retry_after=_seconds(answer.headers.get("Retry-After", "")),
            )
        declared = answer.headers.get("Content-Length", "")
        if declared.isdecimal():
            self._check_size(int(declared))
        body = bytearray()
        while chunk := answer.read1(_READ, decode_content=True):
            body += chunk
            self._check_size(len(body))
        return bytes(body)

    @contextmanager
    def _opened(self, clock: _Clock) -> Iterator[None]:
        """Tells the connections that this thread opens which rules hold."""
        _task.rule, _task.clock = self._rule, clock
        _task.settings = self._settings
        try:
            yield
        finally:
            _task.rule = _task.clock = _task.settings = None


class _Refused(FetchFailed):
    """A status other than 200, with the pause the server asks for."""

    def __init__(self, message: str, *, retryable: bool, retry_after: float) -> None:
        super().__init__(message, retryable=retryable)
        self.retry_after = retry_after


# -- how long a row may take -------------------------------------------------------------------


class _Clock:
    """What is left of a row's time, and of its request's."""

    def __init__(self, seconds: float, until: float | None = None) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._until = until

    def left(self) -> float:
        end = self._end if self._until is None else min(self._end, self._until)
        return end - time.monotonic()

    def at_most(self, seconds: float) -> float:
        """A timeout of `seconds`, or less where a deadline comes first."""
        left = self.left()
        if left <= 0:
            raise self.over()
        return min(seconds, left)

    def over(self) -> FetchTimeout:
        """What a row is told whose time is up."""
        if self._until is not None and time.monotonic() >= self._until:
            return FetchTimeout("the request's time for downloads was over before its turn came")
        return FetchTimeout(f"took more than {self._seconds:g} s in all")

    @contextmanager
    def queueing(self, semaphore: threading.Semaphore) -> Iterator[None]:
        """Waits for a place. Waiting in our own queue is not the server's fault: the row's
        deadline moves on; the request's stays."""
        began = time.monotonic()
        patience = None if self._until is None else max(0.0, self._until - began)
        if not semaphore.acquire(timeout=patience):
            raise self.over()
        self._end += time.monotonic() - began
        try:
            yield
        finally:
            semaphore.release()


class _Slots:
    """At most `size` downloads from one host at a time; forgets hosts that nobody uses."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._hosts: dict[str, tuple[threading.Semaphore, int]] = {}

    @contextmanager
    def of(self, host: str, clock: _Clock) -> Iterator[None]:
        semaphore = self._enter(host)
        try:
            with clock.queueing(semaphore):
                yield
        finally:
            self._leave(host)

    def _enter(self, host: str) -> threading.Semaphore:
        with self._lock:
            semaphore, users = self._hosts.get(host, (threading.Semaphore(self._size), 0))
            self._hosts[host] = (semaphore, users + 1)
            return semaphore

    def _leave(self, host: str) -> None:
        with self._lock:
            semaphore, users = self._hosts[host]
            if users == 1:
                del self._hosts[host]
            else:
                self._hosts[host] = (semaphore, users - 1)


# -- connections that keep both rules ----------------------------------------------------------


class _Task(threading.local):
    """The rules for the sockets this thread uses now. urllib3 opens and reads them in the calling
    thread, and offers no other way to hand a deadline down to a single read."""

    rule: AddressRule | None = None
    clock: _Clock | None = None
    settings: Settings | None = None

    def rules(self) -> tuple[AddressRule, _Clock, Settings]:
        if self.rule is None or self.clock is None or self.settings is None:
            raise AssertionError("a connection is used outside a download")
        return self.rule, self.clock, self.settings


_task = _Task()


def _not_ours(_: logging.LogRecord) -> bool:
    """urllib3 logs whole URLs, signatures included; of our downloads it shall log nothing."""
    return _task.rule is None


for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_not_ours)


class _TimedReader(io.RawIOBase):
    """A socket's bytes, every single read cut at the deadline."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        _, clock, settings = _task.rules()
        self._sock.settimeout(clock.at_most(settings.read_timeout))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: object, **kwargs: object) -> None:
        super().__init__(sock, *args, **kwargs)  # type: ignore[arg-type]
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_TimedReader(sock, raw), _READ)


class _Guarded(HTTPConnection):
    response_class = _TimedResponse

    def _new_conn(self) -> socket.socket:
        rule, clock, settings = _task.rules()
        host = self._dns_host.strip("[]")
        last: OSError | None = None
        blocked = ""
        for family, kind, protocol, _, address in _resolve(host, self.port, clock):
            if not rule.allows(host, address[0]):
                blocked = address[0]
                continue
            try:
                # Refuses too where this machine speaks no IPv6; the next address may be IPv4.
                sock = socket.socket(family, kind, protocol)
                return self._connected(sock, address, clock, settings)
            except OSError as error:
                last = error
        if last is None:
            raise BlockedHost(_blocked_message(host, blocked))
        raise NewConnectionError(self, str(last)) from last

    def _connected(
        self, sock: socket.socket, address: tuple[object, ...], clock: _Clock, settings: Settings
    ) -> socket.socket:
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(clock.at_most(settings.connect_timeout))
            sock.connect(address)
            # Bounds the TLS handshake, whose timeout ssl counts over all its reads.
            sock.settimeout(clock.at_most(settings.read_timeout))
        except BaseException:
            sock.close()
            raise
        return sock


class _GuardedTls(_Guarded, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Guarded


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTls


def _blocked_message(host: str, address: str) -> str:
    leads = f"{_start(host, 80)} leads to {address}" if host != address else host
    return f"{leads}, which is not a public address; SCORE_ALLOW_HOSTS can allow it"


def _resolve(host: str, port: int, clock: _Clock) -> list[tuple]:  # type: ignore[type-arg]
    """getaddrinfo, given up at the deadline: it knows no timeout, so a thread waits for it."""
    # No SimpleQueue, whose `get` may forget its timeout on a machine that is busy.
    box: queue.Queue[list | OSError] = queue.Queue()  # type: ignore[type-arg]

    def look_up() -> None:
        try:
            box.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot spell
            box.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    _, _, settings = _task.rules()
    try:
        found = box.get(timeout=clock.at_most(settings.connect_timeout))
    except queue.Empty:
        raise FetchTimeout(f"looking up {_start(host, 80)} took too long") from None
    if isinstance(found, OSError):
        temporary = getattr(found, "errno", None) == socket.EAI_AGAIN
        raise FetchFailed(f"no address for {_start(host, 80)}", retryable=temporary)
    return found


# -- foreign errors, translated at the border --------------------------------------------------

_UNREADABLE = (LocationParseError, LocationValueError, UnicodeError, http.client.InvalidURL)


def _translate(
    error: Exception, target: urllib3.util.Url, settings: Settings, clock: _Clock
) -> RowError:
    """What a failure inside urllib3, ssl or the socket layer means for the row."""
    if isinstance(error, _UNREADABLE):
        return BadUrl(f"cannot be read as a URL: {_where(target)}")
    for cause in _causes(error):
        if isinstance(cause, NewConnectionError):  # urllib3 counts it among its timeouts
            continue
        if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
            if clock.left() <= 0:
                return FetchTimeout(f"{_where(target)} took more than {settings.row_deadline:g} s")
            return FetchTimeout(f"{_where(target)} did not answer in time")
        if isinstance(cause, ssl.SSLError | SSLError):
            return FetchFailed(f"TLS with {_where(target)} failed: {_reason(error)}")
        if isinstance(cause, ConnectionRefusedError):
            return FetchFailed(f"{_where(target)} refused the connection", retryable=True)
    if isinstance(error, NewConnectionError):
        return FetchFailed(f"cannot connect to {_where(target)}", retryable=True)
    return FetchFailed(f"{_where(target)} broke off or did not speak HTTP", retryable=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    """What OpenSSL found wrong. urllib3 wraps its errors in some that do not say."""
    for cause in _causes(error):
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


# -- small helpers -----------------------------------------------------------------------------


def _parse(url: str) -> urllib3.util.Url:
    if len(url) > _MAX_URL:
        raise BadUrl(f"longer than {_MAX_URL} characters")
    try:
        target = urllib3.util.parse_url(url)
    except (LocationParseError, UnicodeError, ValueError):
        raise BadUrl(f"cannot be read as a URL: {_start(url)}") from None
    if target.auth:
        raise BadUrl("user name and password in a URL are not sent; use a signed URL")
    if not target.host:
        raise BadUrl(f"names no host: {_start(url)}")
    return target._replace(fragment=None)


def _redirected(target: urllib3.util.Url, location: str) -> str:
    """Where a `Location` header leads. It arrives read as Latin-1, and may have been UTF-8."""
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        url = urllib.parse.urljoin(target.url, location)
    except ValueError:
        raise BadUrl(f"{_where(target)} redirects to something that is not a URL") from None
    if not (scheme := _SCHEME.match(url)) or scheme[1].lower() not in ("http", "https"):
        raise BadUrl(f"{_where(target)} redirects to something that is not http or https")
    return url


def _where(target: urllib3.util.Url) -> str:
    """The URL without its query, which may hold a signature."""
    path = target.path or "/"
    return _start(f"{target.scheme}://{target.netloc}{path}", 120)


def _start(text: str, length: int = 40) -> str:
    """How a cell or URL begins, without what may be secret: user, password, query."""
    public = _SECRET.sub("…", text[:_MAX_URL])
    shown = public if len(public) <= length else public[:length] + "…"
    return "".join(c if c.isprintable() else "�" for c in shown)


def _trust(ca_bundle: str) -> ssl.SSLContext:
    """The system's certificate authorities, certifi's, and the deployment's own."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if ca_bundle:
        try:
            context.load_verify_locations(ca_bundle)
        except OSError as error:  # ssl.SSLError is one
            raise SettingError(f"cannot load certificates from {ca_bundle}: {error}") from error
    return context


def file_below(root: Path, cell: str) -> Path | None:
    """The file below `root` that a cell names; links that lead out of `root` do not count."""
    if len(cell) > 1024 or "\0" in cell:
        return None
    try:
        file = (root / cell).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # not a name at all; a link to itself
        return None
