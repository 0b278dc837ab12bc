"""HTTP connections to the servers of images, which enforce two rules.

The address rule. A URL may lead only to public addresses, or to those that `allow_hosts` names.
The rule is applied where the socket is opened, to the very address it is about to connect to:
spellings (`0x7f.1`, `2130706433`), redirects and names that resolve differently the second time
make no difference, because no name is resolved between the two. Proxies from the environment are
not used: they would connect on our behalf, out of the rule's sight. An operator who sets `proxy`
moves the rule there: names are then resolved by the proxy, and only addresses that the URL spells
out, and `localhost`, are still judged here.

The deadline rule. Every wait on the network (look-up, connect, the proxy, TLS, each single read of
headers or body) ends at the row's deadline, so that a server that sends a byte a second times out
like one that sends none. Where the row's call is cancelled, the socket is shut down, which ends
whatever waits for it at once.
"""

from __future__ import annotations

import http.client
import io
import logging
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

from score.concurrency.forks import renewing
from score.errors import BlockedHost, SettingError
from score.fetch import framing, urls
from score.fetch.address_rule import AddressRule, Verdict
from score.fetch.causes import causes
from score.fetch.circuit_breaker import NotConnected
from score.fetch.deadline import Deadline
from score.fetch.disclosure import NothingPublic, Unreachable
from score.fetch.look_up import Address, LookUps, NoAddress, literal
from score.settings import Settings
from score.validation.paths import path_of

_READ = 64 * 1024
_SERVERS = 64  # whose idle connections are kept
_OPEN = 512  # connections, above which all idle ones are closed: half of the usual 1,024 files
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Connections:
    """Sends GET requests over persistent connections. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingError for certificates that cannot be loaded."""
        _filter_logs()
        self.rule = AddressRule(settings.allow_hosts, settings.fetch_ports)
        self.settings = settings
        self.look_ups = LookUps()
        self._trusted = _trust(settings.ca_bundle)
        renewing(self._renew)

    def _renew(self) -> None:
        """In a forked process, too: over a kept connection, each would read the other's answers."""
        settings = self.settings
        self.opened = _Opened(_OPEN)
        options: dict[str, Any] = {
            "num_pools": _SERVERS,
            "maxsize": settings.per_host,
            "headers": {
                "User-Agent": settings.user_agent,
                "Accept-Encoding": "identity",
                "Accept": "*/*",
            },
            "ssl_context": self._trusted,
        }
        self._pools = _proxied(settings, options) if settings.proxy else PoolManager(**options)
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    @contextmanager
    def get(self, target: Url, visit: Visit) -> Iterator[BaseHTTPResponse]:
        """The answer to a GET request within the block, its body not read yet.

        `visit` then knows what was found. Raises RowError, and what urllib3, ssl and the socket
        layer raise.
        """
        if self.settings.proxy:
            self.refuse_by_rule(target)
        visit.connections = self
        with _visiting(visit):
            answer = self._request(target.url)
            visit.is_answered = True
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

    def refuse_by_rule(self, target: Url) -> None:
        """Judges a host that is an address without a look-up, which costs fifty times as much; with
        a proxy, which looks names up, also their ports and `localhost`. Raises BlockedHost."""
        host, port = f"{target.host}".strip("[]").rstrip("."), urls.port(target)
        is_here = host.split(".")[-1].lower() == "localhost" and self.settings.proxy
        address = "127.0.0.1" if is_here else literal(host)
        if address is not None:
            verdict = self.rule.judge(host, address, port)
            if not verdict.is_allowed:
                raise _refusal(host, port, {address: verdict})
        elif self.settings.proxy and not self.rule.may_reach(host, port):
            raise _refusal(host, port, {})


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
            context.load_verify_locations(path_of("SCORE_CA_BUNDLE", ca_bundle))
        except OSError as error:  # ssl.SSLError is one
            raise SettingError(f"cannot load certificates from {ca_bundle}: {error}") from error
    return context


# -- what a connection has to know of the request it serves --------------------------------------


@dataclass
class Visit:
    """A request in progress, found by its connection through a thread-local variable: urllib3 opens
    and reads connections in the calling thread, and has no parameter for a deadline of reads.

    is_inside: its server's address is not public. is_answered: by a head that is HTTP.
    """

    deadline: Deadline
    is_inside: bool = False
    is_answered: bool = False
    # For this module.
    connections: Connections = field(init=False)
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
    visit: Visit | None = None


_task = _Task()


@contextmanager
def _visiting(visit: Visit) -> Iterator[None]:
    _task.visit = visit
    try:
        with visit.opening:
            yield
    finally:
        _task.visit = None


def _current() -> Visit:
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
    is_inside = False

    def request(self, *args: Any, **kwargs: Any) -> None:
        _current().is_inside = self.is_inside  # of a kept connection; `_new_conn` judges new ones
        super().request(*args, **kwargs)

    def _new_conn(self) -> socket.socket:
        visit = _current()
        visit.opened = True
        host = self._dns_host.strip("[]")
        last: OSError | None = None
        judged: dict[str, Verdict] = {}
        for family, kind, protocol, _, address in self._addresses(host, visit):
            verdict = judged[address[0]] = self._judge(host, address[0], visit)
            if not verdict.is_allowed:
                continue
            self.is_inside = visit.is_inside = verdict is Verdict.INSIDE
            try:
                # Refuses too where this machine speaks no IPv6; the next address may be IPv4.
                sock = socket.socket(family, kind, protocol)
                return self._connected(sock, address, visit)
            except OSError as error:
                last = error
        if last is None:
            raise _refusal(host, self.port, judged)
        visit.connections.look_ups.forget(host, self.port)
        raise NewConnectionError(self, str(last)) from last

    def _judge(self, host: str, address: str, visit: Visit) -> Verdict:
        if self.proxy:  # the operator has named it: its own address may be private
            return Verdict.PUBLIC
        return visit.connections.rule.judge(host, address, self.port)

    def _addresses(self, host: str, visit: Visit) -> list[Address]:
        """Where a host is. Raises RowError where that is nowhere."""
        patience = visit.connections.settings.connect_timeout
        try:
            return visit.connections.look_ups.addresses(host, self.port, visit.deadline, patience)
        except NoAddress as error:
            if self.proxy:  # whose name is no client's business
                raise NotConnected("the proxy has no address") from error
            if error.is_temporary:
                raise NotConnected(f"{error} at the moment") from error
            if visit.connections.rule.names(host, self.port):
                raise Unreachable(str(error)) from error
            raise NothingPublic(str(error)) from error

    def _connected(
        self, sock: socket.socket, address: tuple[object, ...], visit: Visit
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


def _refusal(host: str, port: int, judged: dict[str, Verdict]) -> BlockedHost:
    """The error of a host that may not be connected to at any of its addresses."""
    shown = urls.start(host, 80)
    if private := [address for address, verdict in judged.items() if verdict is Verdict.PRIVATE]:
        leads = host if private == [host] else f"{shown} leads to {', '.join(private)[:200]}"
        return NothingPublic(f"{leads}, which is not public; SCORE_ALLOW_HOSTS can allow it")
    return BlockedHost(
        f"nothing is fetched from port {port} of {shown}; SCORE_FETCH_PORTS can allow it"
    )
