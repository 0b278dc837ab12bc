"""Several worker processes of this machine: one a GPU, or one for some cores.

Theory of operation

Each worker is a process of its own, with a model and the input open, at the other end of a pipe.
The first one loads the model alone: what it chooses (precision, engine) holds for all, and what it
compiles is there for the others. Those are started when there is work for them.

A worker gets tasks ahead, so that it embeds the rows of one after those of another in one stream.
If it dies, its pipe ends, and its tasks go to others. A worker that dies before it has loaded the
model cannot be a task's fault: that happens a few times in a row at most.

Ctrl+C goes to all processes of a terminal. Workers never see it: whoever has the job's folder ends
them by SIGKILL, which does no harm, since no shard has its name before it is complete. If that
process is killed, its workers notice and end.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from score.errors import ScoreError
from score.executors.executor import Seen
from score.executors.queue import TaskQueue
from score.executors.work import Begun, Failure, Partial, Refusal, Result, Task, UnderWay, Work
from score.executors.worker_process import run
from score.hardware.processor import cores

log = logging.getLogger(__name__)

_AHEAD_ROWS = 5_000  # of tasks after its first that a worker has: its stream reads so far ahead
_AHEAD_TASKS = 8  # at most, with the first
# One interpreter keeps about four cores busy with decoding (docs/gpu.md).
_CORES_A_WORKER, _MOST_A_GPU = 4, 8
_BESIDE_WEIGHTS = 3 * 2**30  # bytes of a GPU that a worker takes: its context, libraries, passes
_STARTS = 3  # of workers that fail in a row


def workers_for(gpus: int, gpu_bytes: int, weights: int) -> int:
    """How many workers this machine suits: one on a CPU, which one keeps busy; on GPUs, which
    several share, as many as decode fast enough, and fit.

    gpu_bytes: the memory of a GPU. weights: the model's, in bytes.
    """
    fitting = gpu_bytes // (weights + _BESIDE_WEIGHTS)
    wanted = min(cores() // _CORES_A_WORKER, gpus * min(_MOST_A_GPU, fitting))
    return max(gpus, wanted) if gpus else 1


@dataclass
class _Process:
    """A worker's process.

    tasks: that it has, by their first rows. alone: whether it is to get no other beside its task.
    """

    number: int
    process: SpawnProcess
    pipe: Connection
    tasks: dict[int, Task] = field(default_factory=dict)
    partials: dict[int, Partial] = field(default_factory=dict)
    is_ready: bool = False
    alone: bool = False

    def give(self, task: Task, *, alone: bool) -> None:
        self.tasks[task.rows.first], self.alone = task, alone
        try:
            self.pipe.send(task)
        except OSError:  # it has ended, as reading from it will tell
            log.debug("worker %d has ended", self.number)

    @property
    def is_full(self) -> bool:
        ahead = sum(task.rows.rows or 0 for task in list(self.tasks.values())[1:])
        return self.alone or ahead >= _AHEAD_ROWS or len(self.tasks) >= _AHEAD_TASKS

    @property
    def end(self) -> str:
        """How the process ended, after it did."""
        self.process.join()
        code = self.process.exitcode or 0
        if code != -signal.SIGKILL:
            return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return "was killed, as the system does where memory is short"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Local:
    """An `Executor` of some processes of this machine."""

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._context = multiprocessing.get_context("spawn")  # threads and CUDA survive no fork
        self._workers: dict[int, _Process] = {}
        self._work: Work | None = None
        self._failed_starts = 0  # in a row

    def begin(self, work: Work) -> Begun:
        """As `Executor.begin`."""
        self._work = work.shared_by(self._count)
        nothing = TaskQueue(())
        while True:
            first = self._workers.get(0) or self._start(0)
            while first.number in self._workers:
                wait([first.pipe])
                for message in self._messages(first, nothing):
                    if isinstance(message, Begun):
                        self._work = self._work.as_begun(message)
                        return message

    def results(self, tasks: Iterable[Task], seen: Seen) -> Iterator[Result | Failure]:
        """As `Executor.results`."""
        queue = TaskQueue(tasks)
        while True:
            self._give(queue)
            busy = [worker for worker in self._workers.values() if worker.tasks]
            if not busy:
                return
            pipes = {worker.pipe: worker for worker in self._workers.values()}
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                for message in self._messages(pipes[pipe], queue):
                    if isinstance(message, (Result, Failure)):
                        yield message
            workers = self._workers.values()
            seen(partial for worker in workers for partial in worker.partials.values())

    def close(self) -> None:
        """As `Executor.close`."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()

    def _give(self, queue: TaskQueue) -> None:
        """Gives tasks to workers that have room for them, and starts workers."""
        while (task := queue.peek()) is not None:
            suspect = queue.is_suspect(task)
            if (worker := self._free(suspect=suspect)) is None:
                return
            worker.give(queue.pop(), alone=suspect)

    def _free(self, *, suspect: bool) -> _Process | None:
        workers = sorted(self._workers.values(), key=lambda worker: len(worker.tasks))
        if workers and not workers[0].tasks:
            workers[0].alone = False
            return workers[0]
        for number in range(self._count):
            if number not in self._workers:
                return self._start(number)
        if suspect:
            return None
        return next((worker for worker in workers if not worker.is_full), None)

    def _start(self, number: int) -> _Process:
        """Starts a worker. Raises OSError."""
        pipe, its_end = self._context.Pipe()
        process = self._context.Process(
            target=run,
            args=(self._work, number, self._count, its_end),
            name=f"worker-{number}",
            daemon=True,
        )
        with its_end, _interrupts_held_back():
            process.start()
        worker = self._workers[number] = _Process(number, process, pipe)
        return worker

    def _messages(self, worker: _Process, queue: TaskQueue) -> Iterator[Begun | Result | Failure]:
        """What a worker has sent, or how its tasks fared if it has ended. Raises ScoreError."""
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Refusal):
                    raise ScoreError(message.why)
                if isinstance(message, UnderWay):
                    worker.partials = message.partials
                    continue
                if isinstance(message, Begun):
                    worker.is_ready, self._failed_starts = True, 0
                if isinstance(message, Result):
                    worker.tasks.pop(message.task.rows.first)
                    worker.partials.pop(message.task.rows.first, None)
                yield message
        except (EOFError, OSError):
            yield from self._died(worker, queue)

    def _died(self, worker: _Process, queue: TaskQueue) -> list[Failure]:
        del self._workers[worker.number]
        worker.pipe.close()
        what = f"worker process {worker.process.pid} {worker.end}"
        tasks = list(worker.tasks.values())
        if worker.is_ready:
            log.warning("%s; its rows are given to another", what)
            return queue.died(tasks, what)
        self._failed_starts += 1
        if self._failed_starts >= _STARTS:
            raise ScoreError(f"{what} before it had loaded the model: are fewer workers possible?")
        log.warning("%s before it had loaded the model; another is started", what)
        queue.put_back(tasks)
        return []


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A process that is started here never sees Ctrl+C, nor that its terminal is closed; this one
    does, a moment later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
