"""What tests start is ended with them, however they end.

Every process that a test starts inherits a mark in its environment, and so does whatever that
process starts, in whatever process group. At the end of the run those that are left are reported
and killed. Where the run itself is killed, a small process that waited for that does so. Needs
/proc: elsewhere nothing is looked for.
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
sys.stdin.read()  # ends when whoever holds the other end does
from tests.support.processes import end
end(sys.argv[1])
"""


def mark() -> str:
    """Puts a mark of this run into the environment, and returns it."""
    os.environ[MARK] = uuid4().hex
    return os.environ[MARK]


def watch(mark: str) -> subprocess.Popen[bytes]:
    """A process that outlives this one, and then ends all that bears the mark."""
    return subprocess.Popen(
        [sys.executable, "-c", _WATCH, mark],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != MARK},
        start_new_session=True,
    )


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """Id and command of each process that bears a mark, but for this one."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            bears = f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
            if bears and int(process.name) != os.getpid():
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(process.name), command.decode("utf-8", "replace").strip()


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed when the block is left, if it has not ended by then."""
    options = {"cwd": Path(__file__).parents[2], **options}
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


# Python's own, which it starts for this process and which ends with it.
_OURS = "from multiprocessing.resource_tracker import main"


def left(mark: str, seconds: float = 5) -> list[str]:
    """The commands of the processes that are still there, those that are just ending left out."""
    give_up = time.monotonic() + seconds
    while (found := _left(mark)) and time.monotonic() < give_up:
        time.sleep(0.1)
    return found


def _left(mark: str) -> list[str]:
    return [command for _, command in marked(mark) if _OURS not in command]


def end(mark: str) -> None:
    """Kills every process that bears a mark, also those that are started meanwhile."""
    while found := [*marked(mark)]:
        for pid, _ in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
