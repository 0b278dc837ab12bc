"""What the workers of a supervisor do in tests: `python -m tests.support.worker_jobs JOB FOLDER`.

Each start adds its process id to a file, so that a test can count them.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

from score.serve import workers
from score.serve.workers import Supervisor

Ready = Callable[[], None]


def serve(folder: Path, ready: Ready) -> int:
    """Serves until SIGTERM; then finishes, which takes a moment."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    _started(folder)
    ready()
    stopped.wait()
    stopped.clear()
    stopped.wait(0.5)
    (folder / f"finished-{os.getpid()}").touch()
    return 0


def stubborn(folder: Path, ready: Ready) -> int:
    """Serves whatever signals come, but for the one that nothing can ignore."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    _started(folder)
    ready()
    threading.Event().wait()
    return 0


def fail(folder: Path, ready: Ready) -> int:
    """Finds the model unusable."""
    _started(folder)
    return workers.UNUSABLE


def crash(folder: Path, ready: Ready) -> int:
    """Ends while it loads."""
    _started(folder)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def one_serves(folder: Path, ready: Ready) -> int:
    """The first serves, all others end while they load."""
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        return crash(folder, ready)
    return serve(folder, ready)


def late(folder: Path, ready: Ready) -> int:
    """The first five or six end while they load, the others serve."""
    with (folder / "tries").open("a+", encoding="utf-8") as stream:
        stream.write("+")
        stream.flush()
        stream.seek(0)
        tries = len(stream.read())
    return crash(folder, ready) if tries <= 6 else serve(folder, ready)


def lacking(folder: Path, ready: Ready) -> int:
    """Serves; see `_lack_memory_once`."""
    return serve(folder, ready)


def _lack_memory_once() -> None:
    """The system does not start the second process when it is asked for the first time."""
    start, asked = SpawnProcess.start, itertools.count(1)

    def starts(process: SpawnProcess) -> None:
        if next(asked) == 2:
            raise OSError("no memory")
        start(process)

    SpawnProcess.start = starts  # type: ignore[method-assign]


def _started(folder: Path) -> None:
    with (folder / "starts").open("a", encoding="utf-8") as stream:
        stream.write(f"{os.getpid()}\n")


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    workers._LONGEST = 0.1
    jobs = (serve, stubborn, fail, crash, one_serves, late, lacking)
    job = {job.__name__: job for job in jobs}[sys.argv[1]]
    if job is lacking:
        _lack_memory_once()
    work = partial(job, Path(sys.argv[2]))
    stopped = Path(sys.argv[2]) / "stopped"
    sys.exit(0 if Supervisor(work, 2, stopped.touch).run() else workers.UNUSABLE)
