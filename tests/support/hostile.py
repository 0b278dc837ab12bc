"""A local server that misbehaves as servers on the internet do.

It uses raw sockets, because no HTTP library sends most of these answers. Its routes are in
`ROUTES`. The server counts requests, so that tests can also check that none was sent. `Network`
resolves host names and blocks connections to other machines.
"""

from __future__ import annotations

import datetime
import email.utils
import gzip
import ipaddress
import itertools
import random
import socket
import ssl
import struct
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import brotli
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from score.fetch import look_up
from tests.support.bad_images import png_bomb
from tests.support.images import random_image

# -- what is served ----------------------------------------------------------------------------

PNG = random_image(1)
JPEG = random_image(2, format="JPEG")
BOMB = png_bomb(5_000)
# Compressed once, here, because the tests have short time-outs.
GZIP = gzip.compress(bytes(8 * 2**20))
GZIP_GZIP = gzip.compress(GZIP)


# -- how it is answered ------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request. `nth`: its number among those for its path, from 1; `at_once`: concurrent ones."""

    path: str
    query: dict[str, str]
    nth: int
    at_once: int = 1

    def number(self, name: str, default: int = 0) -> int:
        return int(self.query.get(name, default))


RESET, HOLD = "reset", "hold"
Part = bytes | float | str


@dataclass(frozen=True)
class Reply:
    """An answer in parts: bytes to send, or seconds (float) of silence.

    RESET makes the next close a TCP reset; HOLD waits for the server's `release`. keep: whether the
    connection stays open at the end.
    """

    parts: Iterable[Part]
    keep: bool = False


def raw(*parts: Part) -> Reply:
    return Reply(parts)


def head(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *headers]
    return "".join(line + "\r\n" for line in [*lines, ""]).encode()


def answer(body: bytes, *headers: str, status: int = 200) -> Reply:
    """A valid answer that keeps the connection open."""
    return Reply([head(status, f"Content-Length: {len(body)}", *headers), body], keep=True)


def chunked(body: bytes, step: int = 100) -> Iterator[bytes]:
    for at in range(0, len(body), step):
        part = body[at : at + step]
        yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


def redirect(location: str, status: int = 302) -> Reply:
    return answer(b"", f"Location: {location}", status=status)


def drip(start: bytes) -> Reply:
    """An endless answer of a byte every 30 ms, so that no read times out."""
    return Reply(itertools.chain([start], itertools.cycle([b"x", 0.03])))


def in_a_while(seconds: float) -> str:
    return email.utils.format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds), usegmt=True
    )


def _chain(request: Request) -> Reply:
    left = request.number("left")
    return redirect(f"/chain?left={left - 1}") if left else answer(PNG)


def _busy(request: Request) -> Reply:
    """429 and a `Retry-After` for the first `times` requests, an image after."""
    if request.nth <= request.number("times", 1):
        return answer(b"", f"Retry-After: {request.query.get('after', '0')}", status=429)
    return answer(PNG)


def _crowded(request: Request) -> Reply:
    """429 and a `Retry-After` for more than `most` concurrent requests."""
    if request.at_once > request.number("most", 1):
        return answer(b"", "Retry-After: 1", status=429)
    return Reply([0.03, head(200, f"Content-Length: {len(PNG)}"), PNG], keep=True)


def _fails(request: Request) -> Reply:
    """`status` for the first `times` requests, an image after."""
    if request.nth <= request.number("times", 10**9):
        return answer(b"sorry", status=request.number("status", 500))
    return answer(PNG)


def _noise(request: Request) -> Reply:
    dice = random.Random(request.number("seed"))
    return raw(_noisy(dice))


_FRAGMENTS = (
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200\r\n",
        b"HTTP/9.9 -1 x\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: -5\r\n", b"Content-Length: 5, 6\r\n"),
    *(b"Content-Length: " + b"9" * 5000 + b"\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Content-Encoding: gzip, deflate, gzip\r\n"),
    *(b"Location: http://[\r\n", b"Location: \xff\xfe\r\n", b"HTTP/1.1 302 Found\r\n"),
    *(
        b"HTTP/1.1 429 Slow\r\n",
        b"Retry-After: Mon, 99 Jan 99999999999999999999 0:0 +9999999999\r\n",
    ),
    *(b"Content-Type: multipart/mixed; boundary=\r\n", b"Content-Type: message/rfc822\r\n"),
    *(
        b": no name\r\n",
        b"no colon\r\n",
        b" folded\r\n",
        b"\x00\x80\xff",
        b"x" * 70_000,
        b"A: b\r\n",
    ),
    *(
        b"5\r\nabcde\r\n",
        b"fffffffffffffffffff\r\n",
        b"-1\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 100 Go\r\n\r\n",
    ),
)


def _noisy(dice: random.Random) -> bytes:
    """Random bytes, or random fragments of HTTP."""
    if dice.random() < 0.1:
        return dice.randbytes(dice.randrange(200))
    start = b"HTTP/1.1 200 OK\r\n" if dice.random() < 0.7 else b""
    data = bytearray(start + b"".join(dice.choices(_FRAGMENTS, k=dice.randrange(8))))
    if dice.random() < 0.7:
        data += b"\r\n" + dice.randbytes(dice.randrange(30))
    if data and dice.random() < 0.3:
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


ROUTES: dict[str, Callable[[Request], Reply]] = {
    # Images, in every encoding and framing of HTTP.
    "/good.png": lambda _: answer(PNG),
    "/good.jpg": lambda _: answer(JPEG),
    "/chunked.png": lambda _: Reply(
        [head(200, "Transfer-Encoding: chunked"), *chunked(PNG)], keep=True
    ),
    "/until-close.png": lambda _: raw(head(200), PNG),
    "/http10.png": lambda _: raw(b"HTTP/1.0 200 OK\r\n\r\n", PNG),
    "/gzip.png": lambda _: answer(gzip.compress(PNG), "Content-Encoding: gzip"),
    "/slow.png": lambda request: Reply(
        [request.number("ms", 150) / 1000, head(200, f"Content-Length: {len(PNG)}"), PNG], keep=True
    ),
    "/held.png": lambda _: raw(HOLD, head(200), PNG),
    "/continue.png": lambda _: raw(head(100), head(100, "X: y"), head(200), PNG),
    "/hints.png": lambda _: raw(head(102), head(103, "Link: </a>"), head(103), head(200), PNG),
    "/203.png": lambda _: answer(PNG, status=203),
    "/206.png": lambda _: answer(PNG, f"Content-Range: bytes 0-{len(PNG) - 1}/9999", status=206),
    "/500-headers.png": lambda _: answer(PNG, *(f"X-{number}: y" for number in range(500))),
    "/odd-headers.png": lambda _: answer(PNG, "no colon here", "Blank : before it", " folded"),
    "/trailers.png": lambda _: Reply(
        [
            head(200, "Transfer-Encoding: chunked"),
            b"%x;ext=1\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(PNG), PNG),
        ],
        keep=True,
    ),
    "/br.png": lambda _: answer(brotli.compress(PNG), "Content-Encoding: br"),
    "/gzip-br.png": lambda _: answer(
        brotli.compress(gzip.compress(PNG)), "Content-Encoding: gzip", "Content-Encoding: br"
    ),
    "/says-gzip.jpg": lambda _: answer(JPEG, "Content-Encoding: gzip"),
    "/says-utf8.png": lambda _: answer(PNG, "Content-Encoding: utf-8"),
    "/drops-the-first.png": lambda request: answer(PNG) if request.nth > 1 else raw(),
    "/tagged.png": lambda request: Reply(
        [
            head(
                request.number("status", 200),
                f"Content-Length: {len(PNG)}",
                "Location: /good.png",
                *(f"X-Robots-Tag: {tag}" for tag in request.query.get("tags", "").split("|")),
            ),
            PNG,
        ]
    ),
    "/two-answers": lambda _: Reply(
        [
            head(200, f"Content-Length: {len(PNG)}")
            + PNG
            + head(200, "Content-Length: 5")
            + b"wrong"
        ],
        keep=True,
    ),
    "/ü.png": lambda _: answer(PNG),
    # Answers without an image, or with part of one.
    "/html": lambda _: answer(b"<!DOCTYPE html><html><body>Please log in</body></html>"),
    "/json": lambda _: answer(b'{"error": "no such image"}'),
    "/svg": lambda _: answer(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
    "/empty": lambda _: answer(b""),
    "/random": lambda _: answer(random.Random(0).randbytes(500)),
    "/truncated.jpg": lambda _: answer(JPEG[: len(JPEG) // 2]),
    "/truncated.png": lambda _: answer(PNG[: len(PNG) // 2]),
    "/bomb.png": lambda _: answer(BOMB),
    "/gzip-bomb": lambda _: answer(GZIP, "Content-Encoding: gzip"),
    "/gzip-gzip-bomb": lambda _: answer(GZIP_GZIP, "Content-Encoding: gzip, gzip"),
    "/bad-gzip": lambda _: answer(b"this is not gzip", "Content-Encoding: gzip"),
    "/cut-gzip": lambda _: answer(gzip.compress(PNG)[:500], "Content-Encoding: gzip"),
    # Statuses.
    "/status": lambda request: answer(b"", status=request.number("is")),
    "/fails": _fails,
    "/busy": _busy,
    "/crowded.png": _crowded,
    # Redirects.
    "/to": lambda request: redirect(request.query["url"], request.number("status", 302)),
    "/loop": lambda _: redirect("/loop"),
    "/chain": _chain,
    "/to-nowhere": lambda _: answer(b"", status=302),
    "/to-blanks": lambda _: redirect(" \t/good.png \t"),
    "/to-voilà": lambda _: redirect("/voilà"),
    "/voilà": lambda _: answer(PNG),
    "/to-empty": lambda _: redirect(" "),
    "/to-two": lambda _: answer(b"", "Location: /good.png", "Location: /good.jpg", status=302),
    "/to-one-twice": lambda _: answer(
        b"", "Location: /good.png", "Location: /good.png", status=302
    ),
    "/to-later": lambda request: answer(
        b"", f"Retry-After: {request.query.get('after', '0')}", "Location: /good.png", status=307
    ),
    "/to-utf8": lambda _: redirect("/ü.png"),
    "/to-utf16": lambda _: raw(b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe/\0\r\n\r\n"),
    # Time.
    "/drip-body": lambda _: drip(head(200, "Content-Length: 100000")),
    "/drip-chunks": lambda _: drip(head(200, "Transfer-Encoding: chunked") + b"ffffff\r\n"),
    "/drip-headers": lambda _: drip(b"HTTP/1.1 200 OK\r\nX: "),
    "/drip-continues": lambda _: Reply(itertools.cycle([head(100), 0.03])),
    "/silence": lambda _: raw(60.0),
    "/silence-after-headers": lambda _: raw(head(200, "Content-Length: 10"), 60.0),
    "/silence-in-body": lambda _: raw(head(200, "Content-Length: 1000"), PNG[:100], 60.0),
    # Size.
    "/endless": lambda _: Reply(itertools.chain([head(200)], itertools.repeat(bytes(65536)))),
    "/endless-chunks": lambda _: Reply(
        itertools.chain(
            [head(200, "Transfer-Encoding: chunked")],
            itertools.repeat(b"10000\r\n" + bytes(65536) + b"\r\n"),
        )
    ),
    "/huge-length": lambda _: raw(head(200, "Content-Length: 99999999999"), bytes(10)),
    # Invalid HTTP.
    "/length-too-large": lambda _: raw(head(200, f"Content-Length: {len(PNG) + 100}"), PNG),
    "/length-too-small": lambda _: raw(head(200, f"Content-Length: {len(PNG) // 2}"), PNG),
    "/length-negative": lambda _: raw(head(200, "Content-Length: -1"), PNG),
    "/length-twice": lambda _: raw(head(200, "Content-Length: 3", "Content-Length: 4"), PNG),
    "/length-words": lambda _: raw(head(200, "Content-Length: many"), PNG),
    "/length-digits": lambda _: raw(head(200, "Content-Length: " + "9" * 5000), PNG),
    "/cut-chunks": lambda _: raw(head(200, "Transfer-Encoding: chunked"), b"100\r\nabc"),
    "/negative-chunk": lambda _: raw(head(200, "Transfer-Encoding: chunked"), b"-1\r\n", PNG),
    "/gzip-chunks": lambda _: raw(head(200, "Transfer-Encoding: gzip, chunked"), b"0\r\n\r\n"),
    "/hints-only": lambda _: raw(head(103)),
    "/hints-endless": lambda _: Reply(itertools.repeat(head(103))),
    "/endless-trailers": lambda _: Reply(
        itertools.chain(
            [head(200, "Transfer-Encoding: chunked"), b"0\r\n"],
            itertools.repeat(b"X: y\r\n" * 1000),
        )
    ),
    "/says-br": lambda _: answer(b"no brotli", "Content-Encoding: br"),
    "/bad-chunks": lambda _: raw(head(200, "Transfer-Encoding: chunked"), b"many\r\nabc"),
    "/close": lambda _: raw(),
    "/reset": lambda _: raw(RESET),
    "/reset-in-body": lambda _: raw(head(200, "Content-Length: 1000"), PNG[:100], 0.05, RESET),
    "/close-in-headers": lambda _: raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "/garbage": lambda _: raw(b"\x00\x01\x02 220 smtp.example ESMTP\r\n\r\n"),
    "/no-status": lambda _: raw(b"HTTP/1.1 OK\r\n\r\n", PNG),
    "/giant-header": lambda _: raw(head(200, "X: " + "x" * 200_000), PNG),
    "/many-headers": lambda _: raw(head(200, *(f"X-{i}: y" for i in range(5000))), PNG),
    "/bad-header": lambda _: raw(head(200, "no colon here", f"Content-Length: {len(PNG)}"), PNG),
    "/noise": _noise,
}


class Server:
    """Serves `ROUTES`; counts requests by path, connections, and concurrent downloads."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        tls: ssl.SSLContext | None = None,
        says: Callable[[], Iterable[Part]] | None = None,
    ) -> None:
        """`says`: sent on every connection, instead of an answer to the request."""
        self.host = host
        self.requests: Counter[str] = Counter()
        self.queries: list[str] = []
        self.heads: list[str] = []
        self.connections = 0
        self.most_at_once = 0
        self.release = threading.Event()
        self._tls = tls
        self._says = says
        self._at_once = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=128)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Server:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.release.set()
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def url(self, path: str, host: str | None = None, scheme: str | None = None) -> str:
        """A route's URL, with this server's address or another host name."""
        host = host or self.host
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme or ('https' if self._tls else 'http')}://{shown}:{self.port}{path}"

    def leading_to(self, url: str, status: int = 302) -> str:
        """The URL of a redirect."""
        return self.url(f"/to?status={status}&url={urllib.parse.quote(url, safe='')}")

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(sock)
            threading.Thread(target=self._talk, args=[sock], daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        # In these tests clients close connections early: not an error.
        with suppress(OSError), sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._says:
                self._send(sock, self._says())
            elif self._tls:
                with self._tls.wrap_socket(sock, server_side=True) as wrapped:
                    self._serve(wrapped)
            else:
                self._serve(sock)
        with self._lock:
            self._open.discard(sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as stream:
            while (line := stream.readline(100_000)) and not self._over.is_set():
                if line[0] == 0x16:  # TLS, on a port without TLS
                    sock.sendall(head(400))
                    return
                fields = iter(lambda: stream.readline(100_000).strip(), b"")
                self.heads.append(b"\n".join([line, *fields]).decode("latin-1"))
                if not self._reply(sock, line.split(b" ")[1].decode()):
                    return

    def _send(self, sock: socket.socket, parts: Iterable[Part]) -> None:
        for part in parts:
            if self._over.is_set():
                return
            if isinstance(part, bytes):
                sock.sendall(part)
            elif isinstance(part, float):
                self._over.wait(part)
            elif part == HOLD:
                self.release.wait(10)
            elif part == RESET:
                _reset(sock)

    def _reply(self, sock: socket.socket, target: str) -> bool:
        """Answers a request; returns whether the connection stays open."""
        path, _, query = target.partition("?")
        path = urllib.parse.unquote(path)
        with self._lock:
            self.requests[path] += 1
            self.queries.append(query)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            nth, at_once = self.requests[path], self._at_once
        # After the last part, the client may send its next request before this thread runs again.
        with ExitStack() as counted:
            counted.callback(self._count_down)
            asked = Request(path, dict(urllib.parse.parse_qsl(query)), nth, at_once)
            reply = ROUTES.get(path, lambda _: answer(b"", status=404))(asked)
            self._send(sock, _before_the_last(reply.parts, counted.close))
            return reply.keep

    def _count_down(self) -> None:
        with self._lock:
            self._at_once -= 1


def _before_the_last(parts: Iterable[Part], act: Callable[[], object]) -> Iterator[Part]:
    """Yields the parts; calls `act` before the last one."""
    held: list[Part] = []
    for part in parts:
        yield from held
        held = [part]
    act()
    yield from held


def drip_handshake() -> Iterator[Part]:
    """The start of a TLS record that never ends."""
    return itertools.chain([b"\x16\x03\x03\x40\x00\x02"], itertools.cycle([b"\0", 0.03]))


def say_nothing() -> list[Part]:
    return [60.0]


def _reset(sock: socket.socket) -> None:
    """Makes the next close send a TCP reset instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def dead_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# -- names and addresses -----------------------------------------------------------------------


class Network:
    """Resolves host names, and blocks connections to other machines.

    `names`: host name → addresses; of a list of lists, each look-up returns the next. Connections
    to other machines are refused and listed in `left`.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str] | list[list[str]]] = {"localhost": ["127.0.0.1"]}
        self.asked: list[str] = []
        self.tried: list[str] = []
        self._getaddrinfo = socket.getaddrinfo
        self._connect = socket.socket.connect

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Network:
        network = self

        def connect(sock: socket.socket, address: tuple) -> None:
            network.connect(sock, address)

        monkeypatch.setattr(look_up, "FRESH", 0.0)  # fetchers live longer than tests
        monkeypatch.setattr(look_up, "_ABSENT", 0.0)
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)
        monkeypatch.setattr(socket.socket, "connect", connect)
        return self

    @property
    def left(self) -> list[str]:
        """Addresses of other machines to which a connection was attempted."""
        return [address for address in self.tried if not _on_this_machine(address)]

    def connect(self, sock: socket.socket, address: tuple) -> None:
        self.tried.append(address[0])
        if not _on_this_machine(address[0]):
            raise ConnectionRefusedError("a test tried to leave the machine")
        self._connect(sock, address)

    def look_up(self, host: str, port: object, *args: object, **more: object) -> list:
        host = host.decode() if isinstance(host, bytes) else host
        if more.get("flags", 0) & socket.AI_NUMERICHOST:
            return self._numeric(host, port)
        self.asked.append(host)
        addresses = self.names.get(host)
        if addresses is None:  # a numeric address, or an unknown name
            return self._numeric(host, port)
        if isinstance(addresses[0], list):
            now = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        else:
            now = addresses
        return [info for address in now for info in self._numeric(address, port)]

    def _numeric(self, address: str, port: object) -> list:
        flags = socket.AI_NUMERICHOST
        return self._getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)


def _on_this_machine(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


# -- certificates ------------------------------------------------------------------------------


class Authority:
    """A certificate authority whose `file` a client may trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("An authority for tests")
        self.file = folder / "authority.pem"
        self.file.write_bytes(_pem(_signed(self._name, self._key, self._name, self._key, "")))

    def context(self, address: str = "127.0.0.1", *, days: int = 1) -> ssl.SSLContext:
        """A server's TLS context for an address; with negative days, an expired certificate."""
        return self._context(self.certificate(address, days=days))

    def certificate(self, address: str = "127.0.0.1", *, days: int = 1) -> Path:
        """A PEM file of a server's certificate for an address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("A server for tests")
        return self._file(key, _signed(subject, key, self._name, self._key, address, days))

    def selfsigned(self) -> ssl.SSLContext:
        """A server's TLS context with a self-signed certificate."""
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("Nobody")
        return self._context(self._file(key, _signed(name, key, name, key, "127.0.0.1")))

    def _file(self, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate) -> Path:
        file = self._folder / f"{cert.serial_number}.pem"
        file.write_bytes(_pem(cert) + _pem_key(key))
        return file

    def _context(self, file: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    address: str,
    days: int = 1,
) -> x509.Certificate:
    """A certificate for an address; for an authority if the address is empty."""
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - datetime.timedelta(days=1))
        .not_valid_after(ends)
    )
    # Python 3.13 and later require all of these.
    extensions = [
        (x509.BasicConstraints(ca=not address, path_length=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
        (_usage(authority=not address), True),
    ]
    if address:
        names = [x509.IPAddress(ipaddress.ip_address(address))]
        extensions.append((x509.SubjectAlternativeName(names), False))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
