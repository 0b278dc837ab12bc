"""Command-line flags that several rooms use: types of their values, errors that name them."""

from __future__ import annotations

import argparse
import errno

_HELP = {
    errno.EADDRINUSE: "choose another with --port",
    errno.EACCES: "choose another with --port",
    errno.EADDRNOTAVAIL: "--host must be an address of this machine",
}


def port(text: str) -> int:
    """A TCP port from 1 to 65535. Raises ArgumentTypeError."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def port_error(error: OSError) -> str:
    """Why a port cannot be listened on, with the flag that helps."""
    help_ = _HELP.get(error.errno or 0)
    return f"{error.strerror}; {help_}" if help_ else f"{error.strerror}"
