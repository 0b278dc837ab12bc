"""The socket that the server listens on."""

from __future__ import annotations

import select
import socket

from score.console.flags import port_error
from score.errors import RequestError


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to an address; connections are refused until `serve`.

    Raises RequestError for an address that is in use, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: without it asyncio leaves Nagle's algorithm on, which holds the body of
    # an answer back until the client has acknowledged the headers, 40 ms later.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: an invalid host name
        listener.close()
        reason = port_error(error) if isinstance(error, OSError) else error
        raise RequestError(f"{host}, port {port}: {reason}") from None
    return listener


def url(listener: socket.socket, *, secure: bool) -> str:
    """The URL of a bound socket. secure: by TLS."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{shown}:{port}"


def has_waiting(listener: socket.socket) -> bool:
    """Whether a connection waits to be accepted; closing the socket would reset it."""
    return bool(select.select([listener], [], [], 0)[0])
