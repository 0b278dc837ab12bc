"""Types of command-line flags that several rooms use."""

from __future__ import annotations

import argparse


def port(text: str) -> int:
    """A TCP port from 1 to 65535. Raises ArgumentTypeError."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
