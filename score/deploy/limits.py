"""`python -m score.deploy.limits CORES BYTES COMMAND …`: the command, on so little of the machine.

Cores by affinity, by which PyTorch counts its threads. Bytes of what a process writes to memory
(RLIMIT_DATA, setrlimit(2)): of each process, for want of a cgroup.
"""

from __future__ import annotations

import os
import resource
import sys


def main(arguments: list[str]) -> None:
    """Replaces this process by the command."""
    cores, size, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:cores])
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
