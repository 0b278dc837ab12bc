"""Which GPU a process takes, where several processes share a machine that has several.

Servers start workers that do not know which of them they are, so each takes the first GPU that no
other has: whoever holds the lock of a file has the GPU, until it ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

_held: dict[int, int] = {}  # place of a GPU → the descriptor whose lock this process holds
_turn = threading.Lock()


def take(names: Sequence[str], folder: Path | None = None) -> int:
    """The place of a GPU among these: this process's own as long as there are enough of them.

    `names` are their own, by whichever numbers a process may see them. Where all are taken, a
    process shares one, by its id. `folder`: where the locks are, by default with temporary files.
    """
    with _turn:
        if _held:
            return next(iter(_held))
        for place, name in enumerate(names):
            lock = (folder or Path(tempfile.gettempdir())) / f"clip-endpoints-{os.getuid()}-{name}"
            descriptor = _lock(lock)
            if descriptor is not None:
                _held[place] = descriptor
                return place
        return os.getpid() % len(names)


def _lock(file: Path) -> int | None:
    """The descriptor by which a file is locked; None where it cannot be, or another has it."""
    import fcntl  # not everywhere, and neither are several GPUs

    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
