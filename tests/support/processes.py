"""Kills the processes that tests start when the run ends, also if it is killed.

Every process that a test starts, and all its descendants in any process group, inherit a mark in
their environment. At the end of the run, remaining ones are reported and killed. If the run itself
is killed, a watching process kills them. Needs /proc; elsewhere nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

MARK = "CLIP_ENDPOINTS_TESTS"

_WATCH = """
import sys
sys.stdin.read()  # returns when the process with the other end exits
from tests.support.processes import end
end(sys.argv[1])
"""


def mark() -> str:
    """Sets the mark of this run in the environment, and returns it."""
    os.environ[MARK] = uuid4().hex
    return os.environ[MARK]


def watch(mark: str) -> subprocess.Popen[bytes]:
    """Starts a process that waits for this one to end, then kills all processes with the mark."""
    return subprocess.Popen(
        [sys.executable, "-c", _WATCH, mark],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != MARK},
        start_new_session=True,
    )


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """Id and command of each other process with the mark."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            has_mark = f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
            if has_mark and int(process.name) != os.getpid():
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(process.name), command.decode("utf-8", "replace").strip()


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end of the block, if it is still running."""
    options = {"cwd": Path(__file__).parents[2], **options}
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


# Started by Python for this process; ends with it.
_OURS = "from multiprocessing.resource_tracker import main"


def left(mark: str, seconds: float = 5) -> list[str]:
    """The commands of the processes that still run after `seconds`."""
    give_up = time.monotonic() + seconds
    while (commands := _left(mark)) and time.monotonic() < give_up:
        time.sleep(0.1)
    return commands


def _left(mark: str) -> list[str]:
    return [command for _, command in marked(mark) if _OURS not in command]


def end(mark: str) -> None:
    """Kills every process with the mark, also those that are started meanwhile."""
    while processes := [*marked(mark)]:
        for pid, _ in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
