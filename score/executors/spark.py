"""Spark's Python workers: a model each, wherever the cluster has its executors.

Theory of operation

Tasks are partitions of one task each, some for each slot of the cluster at a time, in two Spark
jobs: where one has no partition left to begin with, the other has. A partition's result comes back
by an accumulator as soon as it is complete, and Spark counts each partition once, however often it
is tried or speculated: of a partition's attempts, which write files of their own, the first that is
complete is the one that the job's folder gets.

The input and the job's folder must be where all machines see them, under the same path.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any
from uuid import uuid4

from pyspark import Accumulator, AccumulatorParam, SparkContext, SparkFiles, TaskContext
from pyspark.sql import SparkSession

from score.errors import ScoreError
from score.executors.executor import Seen, first_line
from score.executors.work import Begun, Failure, Refusal, Result, Task, Work
from score.executors.worker import Worker
from score.job_folder import manifest
from score.spark import send

_PER_SLOT = 4  # partitions of one Spark job for each slot of the cluster
_JOBS = 2  # at a time
_LOOK = 0.2  # seconds between two looks for results
_OS_TRIES = 3  # of a partition whose machine has a problem, such as a full disk
_LOST = re.compile(r"Task (\d+) in stage \S+ failed \d+ times?, most recent failure: (.*)")

Outcome = Result | Refusal


class Outcomes(AccumulatorParam[list[Outcome]]):  # type: ignore[misc]
    """Gathers what partitions send."""

    def zero(self, value: list[Outcome]) -> list[Outcome]:
        """Where each partition begins."""
        return []

    def addInPlace(self, value1: list[Outcome], value2: list[Outcome]) -> list[Outcome]:
        """Both."""
        value1.extend(value2)
        return value1


@dataclass
class _Wave:
    """Partitions of one Spark job.

    open: those without a result, by their first rows. seen: how many outcomes have been looked at.
    """

    tasks: list[Task]
    outcomes: Accumulator[list[Outcome]]
    open: dict[int, Task]
    thread: threading.Thread = field(default_factory=threading.Thread)
    seen: int = 0
    error: Exception | None = None

    def new(self) -> list[Outcome]:
        """What has come since the last call."""
        every: list[Outcome] = self.outcomes.value
        new = every[self.seen :]
        self.seen += len(new)
        return new


class Spark:
    """An `Executor` of a Spark session's workers."""

    def __init__(self, session: SparkSession | None = None) -> None:
        """session: by default the one that spark-submit or Spark's configuration describe, which is
        stopped in the end if it was not there before."""
        self._is_ours = session is None and SparkSession.getActiveSession() is None
        self._session = session or SparkSession.builder.appName("score embed").getOrCreate()
        self._context: SparkContext = self._session.sparkContext
        self._group = f"score-{uuid4().hex}"
        self._waves = list[_Wave]()
        self._work: Work | None = None

    def begin(self, work: Work) -> Begun:
        """As `Executor.begin`."""
        sent = replace(work, model=send(self._context, work.model))
        sent = sent.shared_by(self._slots(), self._slots_of_machine())
        begun: Begun | Refusal = self._context.parallelize([sent], 1).map(_begun).first()
        if isinstance(begun, Refusal):
            raise ScoreError(begun.why)
        self._work = sent.as_begun(begun)
        return begun

    def results(self, tasks: Iterable[Task], seen: Seen) -> Iterator[Result | Failure]:
        """As `Executor.results`."""
        coming, again = iter(tasks), list[Task]()
        size = self._slots() * _PER_SLOT
        while True:
            while len(self._waves) < _JOBS and (few := [*again, *islice(coming, size)]):
                again.clear()
                self._submit(few)
            if not self._waves:
                return
            for wave in list(self._waves):
                wave.thread.join(_LOOK / _JOBS)
                has_ended = not wave.thread.is_alive()  # before the look, which is the last then
                yield from self._taken(wave)
                if has_ended:
                    self._waves.remove(wave)
                    if failure := _failure(wave):
                        yield failure
                    again.extend(wave.open.values())
            seen(())

    def close(self) -> None:
        """As `Executor.close`."""
        if self._waves:
            self._context.cancelJobGroup(self._group)
        for wave in self._waves:
            wave.thread.join()
        self._waves.clear()
        if self._is_ours:
            self._session.stop()
            self._is_ours = False

    def _slots(self) -> int:
        """Python workers of the whole cluster, at a time."""
        return max(1, int(self._context.defaultParallelism) // self._cpus())

    def _slots_of_machine(self) -> int:
        """Python workers of one executor, at a time; all, where there is one executor."""
        cores = self._context.getConf().get("spark.executor.cores")
        return max(1, int(cores) // self._cpus()) if cores else self._slots()

    def _cpus(self) -> int:
        return int(self._context.getConf().get("spark.task.cpus", "1") or 1)

    def _submit(self, tasks: list[Task]) -> None:
        outcomes: Accumulator[list[Outcome]] = self._context.accumulator([], Outcomes())
        wave = _Wave(tasks, outcomes, {task.rows.first: task for task in tasks})
        wave.thread = threading.Thread(target=self._run, args=(wave,), daemon=True)
        self._waves.append(wave)
        wave.thread.start()

    def _run(self, wave: _Wave) -> None:
        """On a thread of its own: returns when all partitions have ended."""
        assert self._work is not None
        try:
            self._context.setJobGroup(self._group, "score embed", interruptOnCancel=True)
            partitions = self._context.parallelize(wave.tasks, len(wave.tasks))
            partitions.foreachPartition(partial(_do, self._work, wave.outcomes))
        except Exception as error:  # for the thread that waits
            wave.error = error

    def _taken(self, wave: _Wave) -> Iterator[Result]:
        for outcome in wave.new():
            if isinstance(outcome, Refusal):
                raise ScoreError(outcome.why)
            if wave.open.pop(outcome.task.rows.first, None):
                yield outcome


def _failure(wave: _Wave) -> Failure | None:
    """The partition for which Spark gave a job up, which is taken out of those that are open.

    Raises ScoreError where it was not for one.
    """
    if wave.error is None:
        return None
    lost = _LOST.search(str(wave.error))
    task = wave.open.pop(wave.tasks[int(lost[1])].rows.first, None) if lost else None
    if lost is None or task is None:
        raise ScoreError(f"Spark gave the job up: {first_line(wave.error)}") from wave.error
    return Failure(task, f"Spark gave them up after some tries ({lost[2]:.300})")


def _begun(work: Work) -> Begun | Refusal:
    """In a worker: loads the model."""
    try:
        return _worker(work).begun
    except (ScoreError, OSError) as error:
        return Refusal(str(error))


def _do(work: Work, outcomes: Any, tasks: Iterable[Task]) -> None:
    """In a worker: makes the shards of a partition."""
    for task in tasks:
        outcomes.add([_outcome(work, task)])


def _outcome(work: Work, task: Task) -> Outcome:
    try:
        if not manifest.exists(work.folder):
            raise ScoreError(
                f"{work.folder} is not on a Spark executor what it is on the driver: the output, "
                "and the input, must be on storage that all machines have under one path"
            )
        (result,) = _worker(work).results([task])
        return result
    except ScoreError as error:
        return Refusal(str(error))
    except OSError as error:
        context = TaskContext.get()
        if context is not None and context.attemptNumber() + 1 < _OS_TRIES:
            raise  # to be tried on another machine
        return Refusal(str(error))


_kept = list[tuple[Work, Worker]]()  # the latest, as long as Spark keeps the process


def _worker(work: Work) -> Worker:
    """The worker of this process, which is begun by a job's first task here."""
    if not _kept or _kept[0][0] != work:
        for _, earlier in _kept:
            earlier.close()
        _kept[:] = [(work, Worker(replace(work, model=SparkFiles.get(work.model))))]
    return _kept[0][1]
