"""A worker in a process of its own, which a pipe connects with the one that has the job's folder.

Kept free of imports that load PyTorch: how many threads that starts follows from the processor
cores that this process has by then.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

from score.console.commands import log_to_stderr
from score.errors import ScoreError
from score.executors.work import Partial, Refusal, Task, UnderWay, Work
from score.hardware.processor import keep_share

log = logging.getLogger(__name__)

_PAUSE = 0.5  # seconds between two reports of how far it is


def run(work: Work, number: int, count: int, pipe: Connection) -> None:
    """Sends what the model is, then a result for each task that comes, until the other end of the
    pipe is closed. number: of this worker, of so many."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_share(number, count)
    log_to_stderr(work.settings.log_level)
    code = 1
    try:
        _work(work, pipe)
        code = 0
    except (EOFError, ConnectionError):  # the other process has ended, or wants no more
        code = 0
    except (ScoreError, OSError) as error:
        pipe.send(Refusal(str(error)))
        code = 0
    except Exception:  # another process may be able to
        log.exception("a worker process cannot go on")
    os._exit(code)  # downloads in progress are threads that would delay the exit


def _work(work: Work, pipe: Connection) -> None:
    from score.executors.worker import Worker

    worker, reports = Worker(work), _Reports(pipe)
    pipe.send(worker.begun)
    while True:
        for result in worker.results(_coming(pipe), reports.report):
            reports.forget(result.task)
            pipe.send(result)


def _coming(pipe: Connection) -> Iterator[Task]:
    """Waits for a task, and yields it and those that have come by the time that it is read."""
    yield pipe.recv()
    while pipe.poll():
        yield pipe.recv()


class _Reports:
    """Reports of how far tasks are, not too many of them."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._partials: dict[int, Partial] = {}
        self._next = 0.0

    def report(self, task: Task, partial: Partial) -> None:
        self._partials[task.rows.first] = partial
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE
            self._pipe.send(UnderWay(self._partials))

    def forget(self, task: Task) -> None:
        self._partials.pop(task.rows.first, None)


def _end_with_parent() -> None:
    """A process whose parent was killed would work on for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
