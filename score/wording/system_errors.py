"""How messages tell errors of the operating system."""

from __future__ import annotations

import errno
import os

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No room is left: on the disk, or for this user."""


def told(error: OSError) -> str:
    """An error as a sentence, with what to do where a file's disk is full."""
    if error.errno not in FULL or not error.filename:
        return str(error)
    return (
        f"{error.filename} cannot be written: {os.strerror(error.errno)}; free some, or name an "
        "output on another disk"
    )
