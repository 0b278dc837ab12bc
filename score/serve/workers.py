"""Several processes behind one port: starts them, and starts another for each that ends.

Theory of operation

The supervisor binds the socket, and every worker accepts connections from it. A connection waits in
the socket's one queue until a worker accepts it, so a worker that crashes loses only those that it
has accepted. (With SO_REUSEPORT each would have a queue of its own, and lose that as well.)

The supervisor loads no model. A worker says by a pipe when its model is loaded. One that ends later
is replaced at once. One that ends earlier would most likely fail again: the pause before its next
start doubles, and once each worker has failed some times in a row, and none serves, the supervisor
stops. If no worker has ever loaded the model, one that finds it unusable is enough. A process that
the system does not start, for want of memory, say, is tried again after such a pause.

SIGTERM and Ctrl+C are passed on to the workers, which answer what they have begun; a second one
kills them (a worker cannot count: it may get the first one from the terminal, too). If the
supervisor is killed, its workers notice and stop.

Not uvicorn's supervisor: its older versions start a failing worker again and again without a pause,
and the newer ones stop all workers where one cannot start.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from score.concurrency.backoff import pause_after
from score.hardware.processor import keep_share

log = logging.getLogger(__name__)

Ready = Callable[[], None]
Work = Callable[[Ready], int]
"""What a worker does; returns its exit code. Calls its argument when it can answer requests."""

UNUSABLE = 2  # exit code of a worker for which starting again is no use

_TRIES = 5  # starts of each worker that fail in a row before the supervisor stops
_LONGEST = 60.0  # seconds between two starts, at most
_LOOK = 0.2  # seconds between looks for signals


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    is_ready: bool = False

    def look(self) -> bool:
        """Whether it has become ready since the last look."""
        try:
            became = not self.is_ready and self.pipe.poll() and bool(self.pipe.recv_bytes())
        except (EOFError, OSError):  # it has ended
            return False
        self.is_ready |= became
        return became

    @property
    def end(self) -> str:
        """How the process ended."""
        code = self.process.exitcode or 0
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


class Supervisor:
    """Keeps a number of workers running until it is told to stop."""

    def __init__(self, work: Work, count: int, on_stop: Callable[[], None]) -> None:
        """work: pickled for each process; on_stop: called when no more workers are started."""
        self._work, self._count, self._on_stop = work, count, on_stop
        self._context = multiprocessing.get_context("spawn")  # threads and CUDA survive no fork
        self._workers: dict[int, _Worker] = {}
        self._due = dict.fromkeys(range(count), 0.0)  # number of a worker → when it is started
        self._asked = self._told = 0  # how often to stop: the supervisor, the workers
        self._latest = 0  # the latest signal
        self._failures = Counter[int]()  # of each number, in a row
        self._has_served = self._gave_up = False

    def run(self) -> bool:
        """Returns when all workers have ended: True if by a signal, False if it gave up. Exits with
        128 and the signal's number after a second signal."""
        with self._signals():
            try:
                while self._workers or not self._asked:
                    self._step()
            finally:
                for worker in self._workers.values():  # none, unless this is an error
                    worker.process.kill()
        if self._told > 1:
            sys.exit(128 + self._latest)
        return not self._gave_up

    def _step(self) -> None:
        if self._asked > self._told:
            self._stop()
        if not self._asked:
            self._start_due()
        self._wait()
        for number, worker in list(self._workers.items()):
            if worker.look():
                self._failures[number], self._has_served = 0, True
                log.info("worker %d (process %d) is ready", number, worker.process.pid)
            if not worker.process.is_alive():
                self._ended(number)

    def _wait(self) -> None:
        """Until a worker ends or is ready, but not for long: a signal does not end the waiting."""
        ends = [worker.process.sentinel for worker in self._workers.values()]
        pipes = [worker.pipe for worker in self._workers.values() if not worker.is_ready]
        if ends:
            wait([*ends, *pipes], _LOOK)
        else:
            time.sleep(_LOOK)

    def _start_due(self) -> None:
        for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
            try:
                self._workers[number] = self._started(number)
                del self._due[number]
            except OSError as error:  # no memory, or no process or file left, at this moment
                pause = self._failed(number)
                log.error("worker %d cannot be started: %s; next try in %g s", number, error, pause)

    def _started(self, number: int) -> _Worker:
        pipe, its_end = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_run, args=(self._work, number, self._count, its_end), name=f"worker-{number}"
        )
        try:
            with its_end, _without_interrupts():
                process.start()
        except OSError:
            pipe.close()
            raise
        return _Worker(process, pipe)

    def _failed(self, number: int) -> float:
        """Seconds until a worker that did not become ready is started again."""
        self._failures[number] += 1
        pause = pause_after(self._failures[number], _LONGEST)
        self._due[number] = time.monotonic() + pause
        return pause

    def _ended(self, number: int) -> None:
        worker = self._workers.pop(number)
        worker.pipe.close()
        if self._asked:
            return
        pause = 0.0 if worker.is_ready else self._failed(number)
        self._due[number] = time.monotonic() + pause
        what = f"worker {number} (process {worker.process.pid}) {worker.end}"
        if self._is_hopeless(worker):
            self._gave_up = True
            self._asked += 1
            log.error("%s; the server stops: no worker can load the model", what)
        else:
            log.error("%s; another is started in %g s", what, pause)

    def _is_hopeless(self, last: _Worker) -> bool:
        if last.is_ready or any(worker.is_ready for worker in self._workers.values()):
            return False
        if not self._has_served and last.process.exitcode == UNUSABLE:
            return True
        return min(self._failures[number] for number in range(self._count)) >= _TRIES

    def _stop(self) -> None:
        if not self._told:
            self._on_stop()
        number = signal.SIGKILL if self._told else signal.SIGTERM
        self._told = self._asked
        for worker in self._workers.values():
            if worker.process.is_alive() and worker.process.pid:
                os.kill(worker.process.pid, number)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked, self._latest = self._asked + 1, number

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started here ignores Ctrl+C, which its supervisor passes on as SIGTERM,
    until it handles it itself: Python would print a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(work: Work, number: int, count: int, pipe: Connection) -> None:
    """A worker's process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_share(number, count)
    sys.exit(work(lambda: pipe.send_bytes(b"ready")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
