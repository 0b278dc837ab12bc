"""Which GPU each of several processes on a machine uses.

Theory of operation

A server's worker processes do not know their number, so they cannot be told which GPU to use. Each
process therefore tries to lock one file per GPU, `clip-endpoints-UID-UUID` in the folder of
temporary files, in the order of the GPUs, and uses the first GPU whose file it could lock. The
kernel releases the lock when the process ends, also when it crashes (see `locks`), so the files may
stay. The name holds the user's id, since a user cannot open another one's file, and the GPU's UUID,
since `CUDA_VISIBLE_DEVICES` renumbers the GPUs of a process.

With more processes than GPUs, those without a lock share: process id modulo the number of GPUs. The
same happens where files cannot be created. A process keeps the GPU that it got first.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from score.hardware.locks import lock_file

_held: dict[int, int] = {}  # index of a GPU → descriptor of the lock file that this process holds
_only_one_thread = threading.Lock()


def take(uuids: Sequence[str], folder: Path | None = None) -> int:
    """Index of the GPU that this process should use.

    `uuids`: stable ids of the visible GPUs, in their order. Takes the first whose lock file is
    free; if all are taken, shares `pid % len(uuids)`. `folder`: of the lock files, by default the
    system's folder for temporary files. Later calls return the same GPU.
    """
    with _only_one_thread:
        if _held:
            return next(iter(_held))
        for index, uuid in enumerate(uuids):
            lock = (folder or Path(tempfile.gettempdir())) / f"clip-endpoints-{os.getuid()}-{uuid}"
            descriptor = lock_file(lock)
            if descriptor is not None:
                _held[index] = descriptor
                return index
        return os.getpid() % len(uuids)
