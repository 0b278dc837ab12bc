"""Locks that processes of one machine hold on files and folders.

The kernel releases a lock (`flock`, exclusive) when the process that holds it ends, also when it
crashes, so no lock is ever stale.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_PAUSE = 0.1  # seconds between tries to lock
_MOMENT = 1.0  # seconds


def lock_file(file: Path) -> int | None:
    """Locks a file, which is created if it does not exist; returns its descriptor.

    Closing the descriptor releases the lock. Never waits: None where another process holds the
    lock, the file cannot be opened, is a link, or the system has no `flock`.
    """
    return _lock(file, os.O_RDWR | os.O_CREAT)


def wait_for_file(file: Path, seconds: float) -> int | None:
    """As `lock_file`, but waits up to some seconds for another process that holds the lock."""
    end = time.monotonic() + seconds
    return _lock(file, os.O_RDWR | os.O_CREAT, end)


def lock_folder(folder: Path) -> int | None:
    """Locks a folder that exists; returns its descriptor, or None, as `lock_file` does."""
    return _lock(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def _lock(path: Path, flags: int, end: float = 0.0) -> int | None:
    """`end`: the monotonic time up to which another process is waited for."""
    try:
        import fcntl  # POSIX only
    except ImportError:
        return None
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # held by another process, or the file system has no locks
            if isinstance(error, BlockingIOError) and time.monotonic() < end:
                time.sleep(_PAUSE)
                continue
            os.close(descriptor)
            return None
        return descriptor


class Held(Exception):
    """Another process holds the lock."""


def hold(file: Path) -> int | None:
    """Locks a file, which is created if it does not exist, until the process ends or the
    descriptor that is returned is closed. Waits a moment for who only asks (`is_held`).

    None where the system or the file system has no `flock`: there, nothing is locked. Raises Held,
    and OSError for a file that cannot be opened.
    """
    return _hold(file, os.O_RDWR | os.O_CREAT)


def hold_folder(folder: Path) -> int | None:
    """As `hold`, of a folder that exists."""
    return _hold(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def _hold(path: Path, flags: int) -> int | None:
    try:
        import fcntl  # POSIX only
    except ImportError:
        return None
    descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o644)
    end = time.monotonic() + _MOMENT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(_PAUSE)
                continue
            os.close(descriptor)
            raise Held from None
        except OSError:
            os.close(descriptor)
            return None
        return descriptor


def is_held(file: Path) -> bool:
    """Whether a process holds a file by `hold`; False where that cannot be told."""
    try:
        import fcntl  # POSIX only

        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
