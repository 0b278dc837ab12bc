"""Runs batch jobs and parallel steps on this machine, as Azure's batch runner does.

Mini-batches of files go to worker processes on several "nodes". Each process calls the entry
script's `init()` once, and `run()` for each mini-batch. A mini-batch that fails, takes too
long or loses its process is retried, then counted as failed; more failed files than
`error_threshold` end the job. See
https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-batch

Each worker process has a thread here that sends it mini-batches and waits for the answers. The
threads share a `_Run`: a queue of mini-batches, and the report, which a lock guards. A thread ends
when all mini-batches are done or the job is ended.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from score.errors import AzureError

_WORKER = Path(__file__).resolve().with_name("worker.py")

INIT_SECONDS = 600  # for `init()`: `--first_task_creation_timeout` of Azure's runner


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of a batch deployment or a parallel component."""

    script: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    nodes: int
    processes: int  # on each node
    mini_batch: int  # files
    retries: int
    timeout: float  # seconds for a mini-batch
    error_threshold: int  # most failed files; -1 is any number
    append_to: Path | None = None  # the file that gets what `run()` returns, if any
    batch_error_threshold: int = -1  # most failed mini-batches; -1 is any number
    prefix: Sequence[str] = ()  # words before each process's command, which limit it
    folder: Path | None = None  # working directory of the processes: the deployment's code


@dataclass
class Report:
    """The outcome of a job."""

    files: int
    succeeded: int = 0
    failed: int = 0  # files
    # The names of a failed mini-batch's files → its last error.
    reasons: dict[str, str] = field(default_factory=dict)
    retried: int = 0  # retries of mini-batches
    lost: int = 0  # mini-batches that failed after all retries
    stopped: bool = False  # whether an error threshold ended the job

    @property
    def untried(self) -> int:
        """Files that were neither done nor failed when the job was ended."""
        return self.files - self.succeeded - self.failed

    def __str__(self) -> str:
        lines = [
            f"{self.files} files: {self.succeeded} succeeded, {self.failed} failed"
            + (f", {self.untried} not tried to the end" if self.untried else "")
            + f"; {self.retried} mini-batches tried again"
        ]
        lines += [f"  {names}: {reason}" for names, reason in self.reasons.items()]
        if self.stopped:
            lines.append("more files failed than error_threshold allows: the job was ended")
        return "\n".join(lines)


def run(job: Job, files: Sequence[Path]) -> Report:
    """Runs a job over files, and returns when all its processes have ended.

    Raises AzureError where `init()` fails in a process.
    """
    state = _Run(job, files)
    with ExitStack() as stack:
        if job.append_to:
            job.append_to.parent.mkdir(parents=True, exist_ok=True)
            state.rows = stack.enter_context(job.append_to.open("x", encoding="utf-8", newline=""))
        threads = [
            threading.Thread(target=_drive, args=(state, node))
            for node in range(job.nodes)
            for _ in range(job.processes)
        ]
        for thread in threads:
            thread.start()
        try:
            state.finished.wait(len(threads))
        except BaseException:  # an interrupt, most likely
            state.ended.set()
            state.finished.wait(len(threads))
            raise
    if state.error:
        if job.append_to and not job.append_to.stat().st_size:
            job.append_to.unlink()
        raise AzureError(state.error)
    return state.report


class _Ended(Exception):
    """No mini-batches are left, or the job is ended."""


class _Failed(Exception):
    """An attempt at a mini-batch failed."""


class _Raised(_Failed):
    """The script raised an error, or exceeded its timeout."""


@dataclass
class _Task:
    files: list[str]
    attempts: int = 0

    @property
    def names(self) -> str:
        return ", ".join(Path(file).name for file in self.files)


class _Counter:
    """Counts threads that have ended.

    Used in place of `Thread.join`, which after an interrupt treats a running thread as ended
    (https://github.com/python/cpython/issues/90882).
    """

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def add(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == count)


class _Run:
    """The state that the threads share."""

    def __init__(self, job: Job, files: Sequence[Path]) -> None:
        self.job, self.report = job, Report(files=len(files))
        # Not SimpleQueue: its `get` may ignore the timeout when another thread gets the item first.
        self.waiting: queue.Queue[_Task] = queue.Queue()
        starts = range(0, len(files), job.mini_batch)
        for start in starts:
            batch = files[start : start + job.mini_batch]
            self.waiting.put(_Task([str(file) for file in batch]))
        self.deaths = 0  # processes that ended before `init()` had returned
        self.left = len(starts)  # mini-batches that are neither done nor failed for good
        self.rows: IO[str] | None = None
        self.ended, self.finished = threading.Event(), _Counter()
        self.error = ""
        self._lock = threading.Lock()

    def next(self) -> _Task:
        while self.left and not self.ended.is_set():
            with suppress(queue.Empty):
                return self.waiting.get(timeout=0.05)
        raise _Ended

    def done(self, task: _Task, text: str, count: int) -> None:
        with self._lock:
            if self.rows:
                self.rows.write(text)
                self.rows.flush()
            missing = max(0, len(task.files) - count)
            self.report.succeeded += len(task.files) - missing
            if missing:
                self._fail(task, missing, f"run() returned {count} items for {len(task.files)}")
            self.left -= 1

    def failed(self, task: _Task, reason: str) -> None:
        with self._lock:
            task.attempts += 1
            if task.attempts <= self.job.retries:
                self.report.retried += 1
                self.waiting.put(task)
                return
            self.report.lost += 1
            self._fail(task, len(task.files), reason)
            self.left -= 1

    def _fail(self, task: _Task, count: int, reason: str) -> None:
        job, report = self.job, self.report
        report.failed += count
        report.reasons[task.names] = reason
        if 0 <= job.error_threshold < report.failed or 0 <= job.batch_error_threshold < report.lost:
            report.stopped = True
            self.ended.set()

    def died_early(self) -> bool:
        """Counts a process that ended before it was ready; true above `retries` of them."""
        with self._lock:
            self.deaths += 1
            return self.deaths > self.job.retries

    def give_up(self, reason: str) -> None:
        """Ends the job; the first reason that is given becomes its error."""
        with self._lock:
            self.error = self.error or reason
        self.ended.set()


def _drive(state: _Run, node: int) -> None:
    worker: _Worker | None = None
    try:
        while True:
            task = state.next()
            try:
                worker = worker or _Worker(state, node)
                state.done(task, *worker.ask(task.files))
            except _Failed as error:
                state.failed(task, str(error))
            if worker and not worker.alive:
                worker.stop()
                worker = None
    except _Ended:
        return
    except BaseException as error:
        state.give_up(str(error) or repr(error))
    finally:
        if worker:
            worker.stop()
        state.finished.add()


class _Worker:
    """A process that runs the script."""

    def __init__(self, state: _Run, node: int) -> None:
        """Returns when `init()` has returned. Raises AzureError where that fails, and _Ended."""
        job = state.job
        orders, answers = os.pipe(), os.pipe()  # each (read end, write end)
        # -P: the worker's own folder is not on sys.path, as it is not at Azure.
        command = [*job.prefix, sys.executable, "-P", str(_WORKER), str(job.script)]
        command += [str(orders[0]), str(answers[1]), *job.arguments]
        environment = {**os.environ, **job.environment, "AZ_BATCH_NODE_ID": f"node-{node}"}
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                cwd=job.folder,
                env=environment,
                pass_fds=(orders[0], answers[1]),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that its child processes can be killed with it
            )
        finally:
            os.close(orders[0])
            os.close(answers[1])
            self._orders, self._answers = os.fdopen(orders[1], "w"), os.fdopen(answers[0], "rb")
        self._state = state
        try:
            self._answer(INIT_SECONDS)
        except _Failed as error:
            self.stop()
            if isinstance(error, _Raised) or state.died_early():
                raise AzureError(f"init() failed: {error}") from None
            raise
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, files: Sequence[str]) -> tuple[str, int]:
        """The text that `run()` gave for a mini-batch, and its number of items. Raises _Failed."""
        try:
            print(json.dumps(files), file=self._orders, flush=True)
        except BrokenPipeError:
            raise self._exited() from None
        answer = self._answer(self._state.job.timeout)
        return answer["text"], answer["count"]

    def _answer(self, seconds: float) -> dict[str, Any]:
        waited = 0.0
        while not select.select([self._answers], [], [], 0.2)[0]:
            waited += 0.2
            if self._state.ended.is_set():
                raise _Ended
            if not self.alive:  # the pipe may stay open in a child process
                raise self._exited()
            if waited >= seconds:
                self.stop()
                raise _Raised(f"no answer within {seconds:g} s")
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise self._exited()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _Raised(answer["error"].strip().splitlines()[-1])
        return answer

    def _exited(self) -> _Failed:
        return _Failed(f"its process ended with {self._process.wait()}")

    def stop(self) -> None:
        """Kills the process and its child processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._orders, self._answers):
            with suppress(BrokenPipeError):
                stream.close()
