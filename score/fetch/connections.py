"""HTTP connections to the servers of images, which enforce two rules.

The address rule. A URL may lead only to public addresses, or to those that `allow_hosts` names.
The rule is applied where the socket is opened, to the very address it is about to connect to:
spellings (`0x7f.1`, `2130706433`), redirects and names that resolve differently the second time
make no difference, because nothing is resolved twice. Proxies from the environment are not used:
they would connect on our behalf, out of the rule's sight. An operator who sets `proxy` moves the
rule there: names are then resolved by the proxy, and only addresses that the URL spells out, and
`localhost`, are still judged here.

The deadline rule. Every wait on the network (look-up, connect, the proxy, TLS, each single read of
headers or body) ends at the row's deadline, so that a server that sends a byte a second times out
like one that sends none. Where the row's call is cancelled, the socket is shut down, which ends
whatever waits for it at once.
"""

from __future__ import annotations

import http.client
import io
import logging
import queue
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

import certifi
from urllib3 import PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ClosedPoolError, NewConnectionError, ProtocolError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, Url, make_headers, parse_url

from score.errors import BlockedHost, FetchFailed, FetchTimeout, SettingError
from score.fetch import framing, urls
from score.fetch.address_rule import AddressRule
from score.fetch.deadline import Deadline
from score.settings import Settings

_READ = 64 * 1024
_SERVERS = 64  # whose idle connections are kept
_OPEN = 512  # connections, above which all idle ones are closed: half of the usual 1,024 files
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Connections:
    """Sends GET requests over persistent connections. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingError for certificates that cannot be loaded."""
        _filter_logs()
        self.rule = AddressRule.of(settings.allow_hosts)
        self.settings = settings
        self.opened = _Opened(_OPEN)
        options: dict[str, Any] = {
            "num_pools": _SERVERS,
            "maxsize": settings.per_host,
            "headers": {
                "User-Agent": settings.user_agent,
                "Accept-Encoding": "identity",
                "Accept": "*/*",
            },
            "ssl_context": _trust(settings.ca_bundle),
        }
        self._pools = _proxied(settings, options) if settings.proxy else PoolManager(**options)
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    @contextmanager
    def get(self, target: Url, deadline: Deadline) -> Iterator[BaseHTTPResponse]:
        """The answer to a GET request within the block, its body not read yet.

        Raises RowError, and what urllib3, ssl and the socket layer raise.
        """
        if self.settings.proxy:
            self._refuse_private(target)
        with _visiting(_Visit(self, deadline)):
            answer = self._request(target.url)
            try:
                yield answer
            finally:
                # A body that was read to its end has already returned its connection to the pool.
                answer.close()

    def close_idle(self) -> None:
        """Closes the connections that are not in use."""
        self._pools.clear()

    def _request(self, url: str) -> BaseHTTPResponse:
        """A kept connection that its server has closed since is not the server's failure: the
        request goes out again (RFC 9112, 9.3.1), at most once for each that may have been kept."""
        visit = _current()
        for _ in range(self.settings.per_host):
            visit.opened = False
            try:
                return self._request_once(url)
            except ClosedPoolError:  # another thread has closed what was idle
                continue
            except ProtocolError as error:
                if visit.opened or not any(isinstance(cause, _STALE) for cause in causes(error)):
                    raise
        return self._request_once(url)

    def _request_once(self, url: str) -> BaseHTTPResponse:
        timeout = Timeout(connect=self.settings.connect_timeout, read=self.settings.read_timeout)
        return self._pools.request(
            "GET",
            url,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=timeout,
        )

    def _refuse_private(self, target: Url) -> None:
        """Judges a host that is an address, without a look-up. Raises BlockedHost."""
        host = f"{target.host}".strip("[]").rstrip(".")
        literal = host.partition("%")[0]  # without an IPv6 zone, which this machine may not have
        if host.split(".")[-1].lower() == "localhost":
            literal = "127.0.0.1"
        try:
            addresses = socket.getaddrinfo(literal, None, flags=socket.AI_NUMERICHOST)
        except (OSError, ValueError):
            return  # a name: the proxy's to judge
        for *_, address in addresses:
            if not self.rule.allows(host, str(address[0])):
                raise BlockedHost(_blocked_message(host, str(address[0])))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its causes and contexts."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def proxy_refusal(error: BaseException) -> str:
    """The status line with which a proxy refused a tunnel; empty where that is not the error."""
    for cause in causes(error):
        if type(cause) is OSError:  # http.client's, which has no class of its own for it
            _, prefix, status = str(cause).partition("Tunnel connection failed: ")
            if prefix:
                return status[:80]
    return ""


def _proxied(settings: Settings, options: dict[str, Any]) -> ProxyManager:
    """Pools whose requests all go to the proxy: plain ones as they are, TLS through a tunnel."""
    url = parse_url(settings.proxy)
    headers = make_headers(proxy_basic_auth=unquote(url.auth)) if url.auth else None
    options["maxsize"] = settings.fetch_workers  # one pool serves all http hosts
    return ProxyManager(url._replace(auth=None).url, proxy_headers=headers, **options)


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


# -- what a connection has to know of the request it serves --------------------------------------


@dataclass
class _Visit:
    """A request in progress, found by its connection through a thread-local variable: urllib3 opens
    and reads connections in the calling thread, and has no parameter for a deadline of reads."""

    connections: Connections
    deadline: Deadline
    opened: bool = False  # whether a new connection was opened for it
    opening: ExitStack = field(default_factory=ExitStack)  # until the answer begins

    def guard(self, sock: socket.socket) -> None:
        """Shuts a new connection down if the call is cancelled before the answer begins.

        By a duplicate of its handle: TLS takes the handle away from the socket that it wraps, and
        returns another socket only when the handshake is over.
        """
        handle = self.opening.enter_context(sock.dup())
        self.opening.enter_context(
            self.deadline.cancellation.interrupting(partial(_shut_down, handle))
        )


class _Task(threading.local):
    visit: _Visit | None = None


_task = _Task()


@contextmanager
def _visiting(visit: _Visit) -> Iterator[None]:
    _task.visit = visit
    try:
        with visit.opening:
            yield
    finally:
        _task.visit = None


def _current() -> _Visit:
    if _task.visit is None:
        raise AssertionError("a connection is used outside a download")
    return _task.visit


def _not_ours(_: logging.LogRecord) -> bool:
    """Drops urllib3's records of our downloads: they hold whole URLs, signatures included."""
    return _task.visit is None


def _filter_logs() -> None:
    """Adds the filter, unless it is there already."""
    for name in ("urllib3.connection", "urllib3.connectionpool"):
        logging.getLogger(name).addFilter(_not_ours)


class _Opened:
    """Counts open connections, so that idle ones do not use up the process's file descriptors."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._all: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()

    def are_too_many(self, connection: HTTPConnection) -> bool:
        """Whether the limit is reached, `connection`, which is being opened, included."""
        with self._lock:
            self._all.add(connection)
            return sum(each.sock is not None for each in self._all) >= self._most


# -- connections that keep both rules ------------------------------------------------------------


class _TimedReader(io.RawIOBase):
    """A socket's bytes; each read times out at the deadline."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self.sock, self._raw = sock, raw
        self.dry = False  # whether reads return end-of-file, so that only buffered bytes are seen

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        if self.dry:
            return 0
        visit = _current()
        self.sock.settimeout(visit.deadline.at_most(visit.connections.settings.read_timeout))
        with visit.deadline.cancellation.interrupting(self._interrupt):
            return self._raw.readinto(buffer)

    def _interrupt(self) -> None:
        _shut_down(self.sock)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Stream(io.BufferedReader):
    """An answer's bytes. Where the server sent more than the answer, the connection is not reused:
    the rest would be read as the next answer."""

    def __init__(self, reader: _TimedReader) -> None:
        super().__init__(reader, _READ)
        self._reader = reader

    def close(self) -> None:
        if not self.closed and self._has_more():
            with suppress(OSError):
                self._reader.sock.shutdown(socket.SHUT_RDWR)
        super().close()

    def _has_more(self) -> bool:
        self._reader.dry = True
        waiting = self._reader.sock.pending() if isinstance(self._reader.sock, ssl.SSLSocket) else 0
        return bool(self.peek(1)) or waiting > 0


class _Response(http.client.HTTPResponse):
    """An answer whose head and framing are read by `framing`."""

    def __init__(self, sock: socket.socket, *args: object, **kwargs: object) -> None:
        super().__init__(sock, *args, **kwargs)  # type: ignore[arg-type]
        _current().opening.close()
        raw = self.fp.detach()
        self.fp = _Stream(_TimedReader(sock, raw))

    def begin(self, **_: object) -> None:
        head = framing.read_head(self.fp)
        self.version, self.reason = head.version, head.reason
        self.code = self.status = head.status
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in head.fields:
            if name.lower() not in ("content-length", "transfer-encoding"):
                self.headers[name] = value
        self.length = head.length
        if head.length is not None:
            self.headers["Content-Length"] = str(head.length)
        self.will_close = not head.persists
        self.chunked = False
        if head.chunked:  # what is read from now on is the body alone
            self.fp = io.BufferedReader(framing.Chunks(self.fp), _READ)


class _Guarded(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        visit = _current()
        visit.opened = True
        host = self._dns_host.strip("[]")
        last: OSError | None = None
        blocked = ""
        for family, kind, protocol, _, address in _resolve(host, self.port, visit):
            # The operator has named the proxy: its own address may be private.
            if not self.proxy and not visit.connections.rule.allows(host, address[0]):
                blocked = address[0]
                continue
            try:
                # Refuses too where this machine speaks no IPv6; the next address may be IPv4.
                sock = socket.socket(family, kind, protocol)
                return self._connected(sock, address, visit)
            except OSError as error:
                last = error
        if last is None:
            raise BlockedHost(_blocked_message(host, blocked))
        raise NewConnectionError(self, str(last)) from last

    def _connected(
        self, sock: socket.socket, address: tuple[object, ...], visit: _Visit
    ) -> socket.socket:
        settings = visit.connections.settings
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            visit.guard(sock)
            sock.settimeout(visit.deadline.at_most(settings.connect_timeout))
            sock.connect(address)
            # Bounds the TLS handshake, whose timeout ssl counts over all its reads.
            sock.settimeout(visit.deadline.at_most(settings.read_timeout))
        except BaseException:
            visit.opening.close()
            sock.close()
            raise
        if visit.connections.opened.are_too_many(self):
            visit.connections.close_idle()
        return sock

    def _tunnel(self) -> None:
        super()._tunnel()
        visit = _current()
        visit.guard(self.sock)
        self.sock.settimeout(visit.deadline.at_most(visit.connections.settings.read_timeout))


class _GuardedTls(_Guarded, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Guarded


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTls


def _shut_down(sock: socket.socket) -> None:
    """Ends reads and writes of other threads. Past TLS, whose own shutdown is not thread-safe."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _blocked_message(host: str, address: str) -> str:
    leads = f"{urls.start(host, 80)} leads to {address}" if host != address else host
    return f"{leads}, which is not a public address; SCORE_ALLOW_HOSTS can allow it"


def _resolve(host: str, port: int, visit: _Visit) -> list[tuple]:  # type: ignore[type-arg]
    """getaddrinfo in a thread, abandoned at the deadline, since it has no timeout."""
    # No SimpleQueue, whose `get` may forget its timeout on a machine that is busy.
    box: queue.Queue[list | OSError] = queue.Queue()  # type: ignore[type-arg]

    def look_up() -> None:
        try:
            box.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot spell
            box.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    timeout = visit.deadline.at_most(visit.connections.settings.connect_timeout)
    call = visit.deadline.cancellation
    try:
        with call.interrupting(partial(box.put, [])):
            answer = box.get(timeout=timeout)
    except queue.Empty:
        raise FetchTimeout(f"looking up {urls.start(host, 80)} took too long") from None
    call.check()
    if isinstance(answer, OSError):
        temporary = getattr(answer, "errno", None) == socket.EAI_AGAIN
        raise FetchFailed(f"no address for {urls.start(host, 80)}", retryable=temporary)
    return answer
