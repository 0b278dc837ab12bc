"""A minimal local forward proxy that records requests."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Proxy:
    """Forwards every request to this machine, for any host name, and records its head."""

    def __init__(self, refuses: int = 0) -> None:
        """`refuses`: if not 0, the HTTP status of every answer."""
        self.heads: list[str] = []
        self._refuses = refuses
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def url(self, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._open.append(sock)
                threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError, IndexError, ValueError), sock, sock.makefile("rb") as stream:
            lines = list(iter(lambda: stream.readline(100_000).strip(), b""))
            self.heads.append(b"\n".join(lines).decode("latin-1"))
            method, target, _ = lines[0].decode("latin-1").split(" ")
            if self._refuses:
                sock.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self._refuses)
                return
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            with socket.create_connection(("127.0.0.1", parts.port or 80)) as upstream:
                self._open.append(upstream)
                if method == "CONNECT":
                    sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    threading.Thread(target=_pump, args=[sock, upstream], daemon=True).start()
                else:
                    path = parts.path + (f"?{parts.query}" if parts.query else "")
                    upstream.sendall(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
                    upstream.shutdown(socket.SHUT_WR)
                _pump(upstream, sock)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
