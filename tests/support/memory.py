"""The memory of other processes. Linux alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def group(leader: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if os.getpgid(int(process.name)) == leader:
                found.append(int(process.name))
    return found


def memory(pid: int, name: str) -> int:
    """Bytes of a process: `VmRSS`, those it holds; `VmHWM`, the most since `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def forget_peak(pid: int) -> None:
    """The most memory that a process has held is counted anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
