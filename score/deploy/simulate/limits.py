"""Runs a command with limited CPU cores and memory.

`python limits.py CORES BYTES COMMAND …`. Cores are limited by CPU affinity, from which PyTorch
takes its thread count. Memory is limited per process by RLIMIT_DATA (setrlimit(2)), since a cgroup
would need privileges.
"""

from __future__ import annotations

import os
import resource
import sys


def main(arguments: list[str]) -> None:
    """Applies the limits and replaces this process with the command."""
    cores, size, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:cores])
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
