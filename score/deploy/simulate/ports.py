"""Free TCP ports of this machine."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

from score.console.flags import port_error
from score.errors import AzureError


def free_port() -> int:
    """A TCP port that no process listens on. Raises AzureError where none of 100 tries is free.

    It is below Linux's ephemeral ports (32768 and up): an outgoing connection might take one of
    those before the server that the port is for has started.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(AzureError):
            check_free(port)
            return port
    raise AzureError("no port is free")


def check_free(port: int) -> None:
    """Raises AzureError for a port that is in use on any of this machine's addresses."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))  # noqa: S104  # as Azure's server will
        except OSError as error:
            raise AzureError(f"port {port}: {port_error(error)}") from None
