"""Locks that processes of one machine hold on files and folders.

The kernel releases a lock (`flock`, exclusive) when the process that holds it ends, also when it
crashes, so no lock is ever stale.
"""

from __future__ import annotations

import os
from pathlib import Path


def lock_file(file: Path) -> int | None:
    """Locks a file, which is created if it does not exist; returns its descriptor.

    Closing the descriptor releases the lock. Never waits: None where another process holds the
    lock, the file cannot be opened, is a link, or the system has no `flock`.
    """
    return _lock(file, os.O_RDWR | os.O_CREAT)


def lock_folder(folder: Path) -> int | None:
    """Locks a folder that exists; returns its descriptor, or None, as `lock_file` does."""
    return _lock(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def _lock(path: Path, flags: int) -> int | None:
    try:
        import fcntl  # POSIX only
    except ImportError:
        return None
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
