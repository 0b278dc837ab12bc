"""Embeds a table into a job's folder by an executor's workers, and goes on with a job that stopped.

    rows that no shard holds ──▶ tasks ──▶ workers ──▶ attempts/… ──▶ shards/… ──▶ the ledger

Only this process gives a shard its name and writes the ledger. So each row is there once, whatever
workers do: one that dies has given nothing its name, and of two that make the same shard the first
one's is taken.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from score.errors import ScoreError
from score.executors.executor import Executor
from score.executors.pieces import Pieces
from score.executors.tally import Tally
from score.executors.work import Failure, Partial, Result, Task, Work
from score.job_folder.embed import JobOptions
from score.job_folder.folder import ATTEMPTS, JobFolder
from score.job_folder.inspection import OTHER_BYTES, Inspection
from score.job_folder.ledger import Entry
from score.job_folder.manifest import Manifest
from score.job_folder.ranges import containing, missing
from score.job_folder.retry import lose, turns
from score.jobs.summary import Summary
from score.tables.lines import Lines

log = logging.getLogger(__name__)

_GIVEN_UP = 3  # shards, after which the job stops before the others are done


def spread_into(
    executor: Executor,
    lines: Lines,
    work: Work,
    options: JobOptions,
    progress: Callable[[Summary], None] | None = None,
    summary: Summary | None = None,
) -> Summary:
    """As `job_folder.embed.embed_into`, by an executor, which is closed in the end.

    lines: the opened input. Where the job is interrupted, shards that are complete are kept. Raises
    ScoreError, too, for rows that end each worker that embeds them, after all others are done.
    """
    with closing(executor):
        begun = executor.begin(work)
        wanted = Manifest.about(
            begun.identity,
            begun.dimension,
            work.settings,
            work.params,
            work.vectors,
            lines,
            dict(work.columns),
        )
        with JobFolder(work.folder, wanted, force_new=options.force_new) as job:
            if not options.vector_cache_bytes:
                job.forget_known()
            try:
                tally = Tally(summary or Summary(), progress)
                with Inspection(job) as inspection:
                    done = _Job(job, executor, options, tally).run(lines, inspection)
            finally:
                executor.close()
                shutil.rmtree(job.path / ATTEMPTS, ignore_errors=True)
            if not done.stopped:
                job.forget_known()
            return done


class _Job:
    """A job's folder, and the executor that works on it."""

    def __init__(
        self, job: JobFolder, executor: Executor, options: JobOptions, tally: Tally
    ) -> None:
        self._job, self._executor, self._options, self._tally = job, executor, options, tally
        self._failures = list[Failure]()
        self._stopped = False
        for entry in job.ledger.done():
            tally.earlier(entry)

    def run(self, lines: Lines, inspection: Inspection) -> Summary:
        self._embed(lines)
        if not self._stopped:
            for entry in inspection.damaged():
                lose(self._job, entry, OTHER_BYTES)
                self._tally.drop(entry)
            self._embed(lines)
            for chosen in turns(self._job, self._options.retries, self._tally.summary):
                self._retry(chosen)
            self._embed(lines)  # rows of shards that turned out to be damaged
        summary = self._tally.show()
        summary.stopped = self._stopped
        if self._failures:
            raise ScoreError(_given_up(self._failures))
        return summary

    def _embed(self, lines: Lines) -> None:
        entries = self._job.ledger.entries
        pieces = Pieces(lines, missing(entries, self._job.manifest.rows), self._options.shard_rows)
        self._do(pieces, lambda: self._tally.reached(pieces.row, pieces.position))
        done = sum(entry.rows for entry in self._job.ledger.done())
        if pieces.total == done:
            self._job.counted(done)

    def _retry(self, chosen: Callable[[Entry], bool]) -> None:
        entries = self._job.ledger.entries
        ranges = containing(entries, chosen)
        self._do([Task(rows, entries[rows.first]) for rows in ranges], may_stop=False)

    def _do(
        self,
        tasks: Iterable[Task],
        look: Callable[[], None] = lambda: None,
        *,
        may_stop: bool = True,
    ) -> None:
        """Has tasks done. look: called when more of the input may be known. may_stop: whether too
        many errors end it."""
        if self._stopped or self._failures:
            return

        def seen(partials: Iterable[Partial]) -> None:
            look()
            summary = self._tally.show(partials)
            if may_stop and self._options.stops(summary):
                raise _TooManyErrors

        self._tally.seconds()
        try:
            for result in self._executor.results(tasks, seen):
                if isinstance(result, Result):
                    self._commit(result)
                    continue
                log.error("%s", _given_up([result]))
                self._failures.append(result)
                if len(self._failures) >= _GIVEN_UP:
                    return
        except _TooManyErrors:
            self._stopped = True

    def _commit(self, result: Result) -> None:
        """Gives a shard its name, and then its line in the ledger. Raises OSError."""
        job, made = self._job, result.entry
        if made is None:
            if result.task.entry is not None:
                job.lost(result.task.entry)
                self._tally.drop(result.task.entry)
            return
        entry = replace(made, file=job.shard(made.first), seconds=self._tally.seconds())
        (job.path / made.file).replace(job.path / entry.file)
        job.ledger.add(entry)
        self._tally.add(result, entry)


class _TooManyErrors(Exception):
    """So many rows have failed that the job stops."""


def _given_up(failures: Sequence[Failure]) -> str:
    """A sentence on rows that could not be embedded."""
    ranges = [failure.task.rows for failure in failures]
    rows = " and ".join(f"{one.first:,} to {(one.end or 0) - 1:,}" for one in ranges)
    return (
        f"rows {rows} (as row_id counts them) cannot be embedded: {failures[-1].why}. What is done "
        "is kept; the same command tries them again"
    )
