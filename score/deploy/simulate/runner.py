"""A stand-in for Azure ML on this machine: a deployment is seen to work before it is paid for.

Batch deployments and parallel steps: mini-batches of files go to worker processes on several
"nodes"; each process runs the entry script's `init()` once; a mini-batch that fails, takes too long
or loses its process is tried again, then counted as failed; more failures than `error_threshold`
end the job. As Microsoft documents it:
https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-batch
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

INIT_SECONDS = 600  # `--first_task_creation_timeout` of Azure's runner


@dataclass(frozen=True, slots=True)
class Job:
    """What a batch deployment or a parallel component asks for."""

    script: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    nodes: int
    processes: int  # on each node
    mini_batch: int  # files
    retries: int
    timeout: float  # seconds for a mini-batch
    error_threshold: int  # most failed files; -1 is any number
    append_to: Path | None = None  # where rows go, if they go anywhere
    batch_error_threshold: int = -1  # most failed mini-batches; -1 is any number
    prefix: Sequence[str] = ()  # of each process's command
    folder: Path | None = None  # where processes start: the deployment's code


@dataclass
class Report:
    """How a job went."""

    files: int
    succeeded: int = 0
    failed: int = 0  # files
    reasons: dict[str, str] = field(
        default_factory=dict
    )  # names of a mini-batch's files → the last
    retried: int = 0  # mini-batches, as often as each was
    lost: int = 0  # mini-batches that failed for good
    stopped: bool = False  # by an error threshold

    @property
    def untried(self) -> int:
        """Files that a job left when it was ended."""
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
    """Runs a job over files.

    Raises AzureError where a process does not get through `init()`; nothing of the job runs on.
    """
    going = _Run(job, files)
    with ExitStack() as stack:
        if job.append_to:
            job.append_to.parent.mkdir(parents=True, exist_ok=True)
            going.rows = stack.enter_context(job.append_to.open("x", encoding="utf-8", newline=""))
        threads = [
            threading.Thread(target=_drive, args=(going, node))
            for node in range(job.nodes)
            for _ in range(job.processes)
        ]
        for thread in threads:
            thread.start()
        try:
            going.over.wait(len(threads))
        except BaseException:  # an interrupt, most likely
            going.ended.set()
            going.over.wait(len(threads))
            raise
    if going.broken:
        if job.append_to and not job.append_to.stat().st_size:
            job.append_to.unlink()
        raise AzureError(going.broken)
    return going.report


class _Ended(Exception):
    """The job is over: there is nothing left to do."""


class _Failed(Exception):
    """A try of a mini-batch came to nothing."""


class _Raised(_Failed):
    """The script raised, or took too long."""


@dataclass
class _Task:
    files: list[str]
    attempts: int = 0

    @property
    def names(self) -> str:
        return ", ".join(Path(file).name for file in self.files)


class _Gone:
    """How many threads are through.

    Waited for in place of `Thread.join`, which takes a thread for ended once it is interrupted
    (https://github.com/python/cpython/issues/90882).
    """

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def one(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == count)


class _Run:
    """What the threads share, each of which drives one process."""

    def __init__(self, job: Job, files: Sequence[Path]) -> None:
        self.job, self.report = job, Report(files=len(files))
        # No SimpleQueue, whose `get` may forget its timeout when another thread was quicker.
        self.waiting: queue.Queue[_Task] = queue.Queue()
        starts = range(0, len(files), job.mini_batch)
        for start in starts:
            batch = files[start : start + job.mini_batch]
            self.waiting.put(_Task([str(file) for file in batch]))
        self.deaths = 0  # of processes that were not through `init()`
        self.left = len(starts)  # mini-batches that are neither done nor failed
        self.rows: IO[str] | None = None
        self.ended, self.over = threading.Event(), _Gone()
        self.broken = ""
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
        """Whether more processes ended before they were ready than a mini-batch has tries."""
        with self._lock:
            self.deaths += 1
            return self.deaths > self.job.retries

    def give_up(self, reason: str) -> None:
        """Ends the job for what went wrong first."""
        with self._lock:
            self.broken = self.broken or reason
        self.ended.set()


def _drive(going: _Run, node: int) -> None:
    worker: _Worker | None = None
    try:
        while True:
            task = going.next()
            try:
                worker = worker or _Worker(going, node)
                going.done(task, *worker.ask(task.files))
            except _Failed as error:
                going.failed(task, str(error))
            if worker and not worker.alive:
                worker.stop()
                worker = None
    except _Ended:
        return
    except BaseException as error:
        going.give_up(str(error) or repr(error))
    finally:
        if worker:
            worker.stop()
        going.over.one()


class _Worker:
    """A process that runs the script."""

    def __init__(self, going: _Run, node: int) -> None:
        """Returns once `init()` has. Raises AzureError where it fails, _Ended."""
        job = going.job
        ours, theirs = os.pipe(), os.pipe()  # orders, answers
        # -P: as at Azure, what the script may import is its own business.
        command = [*job.prefix, sys.executable, "-P", str(_WORKER), str(job.script)]
        command += [str(ours[0]), str(theirs[1]), *job.arguments]
        environment = {**os.environ, **job.environment, "AZ_BATCH_NODE_ID": f"node-{node}"}
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                cwd=job.folder,
                env=environment,
                pass_fds=(ours[0], theirs[1]),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that all it starts can be ended with it
            )
        finally:
            os.close(ours[0])
            os.close(theirs[1])
            self._orders, self._answers = os.fdopen(ours[1], "w"), os.fdopen(theirs[0], "rb")
        self._going = going
        try:
            self._answer(INIT_SECONDS)
        except _Failed as error:
            self.stop()
            if isinstance(error, _Raised) or going.died_early():
                raise AzureError(f"init() failed: {error}") from None
            raise
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, files: Sequence[str]) -> tuple[str, int]:
        """What `run()` made of a mini-batch: lines, and of how many items. Raises _Failed."""
        try:
            print(json.dumps(files), file=self._orders, flush=True)
        except BrokenPipeError:
            raise self._gone() from None
        answer = self._answer(self._going.job.timeout)
        return answer["text"], answer["count"]

    def _answer(self, seconds: float) -> dict[str, Any]:
        waited = 0.0
        while not select.select([self._answers], [], [], 0.2)[0]:
            waited += 0.2
            if self._going.ended.is_set():
                raise _Ended
            if not self.alive:  # though something that it started may hold the pipe
                raise self._gone()
            if waited >= seconds:
                self.stop()
                raise _Raised(f"no answer within {seconds:g} s")
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise self._gone()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _Raised(answer["error"].strip().splitlines()[-1])
        return answer

    def _gone(self) -> _Failed:
        return _Failed(f"its process ended with {self._process.wait()}")

    def stop(self) -> None:
        """Kills the process and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._orders, self._answers):
            with suppress(BrokenPipeError):
                stream.close()
