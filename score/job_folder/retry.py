"""Tries the failed rows of a job again that may succeed another time.

Only the shards that have such rows are read and written again, each at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from score.contract.params import Params
from score.contract.rows import Record
from score.core.embedder import Embedder, pipeline_of
from score.fetch.host_times import HostTimes
from score.job_folder import stored
from score.job_folder.folder import JobFolder
from score.job_folder.known import Known
from score.job_folder.ledger import Entry
from score.job_folder.ranges import Range, containing
from score.job_folder.rows import Item, embedded
from score.jobs.summary import Summary, drop
from score.tables.lines import Lines

log = logging.getLogger(__name__)

PAUSES = (10.0, 60.0)  # seconds before rows whose hosts were not asked have another turn


def retry(
    job: JobFolder,
    embedder: Embedder,
    known: Known | None,
    lines: Lines,
    params: Params,
    chosen: Callable[[Entry], bool],
    summary: Summary,
    progress: Callable[[Summary], None] | None = None,
) -> None:
    """Embeds the rows again whose error is retryable, and writes their shards again.

    chosen: the shards in question. A shard that cannot be read is removed: its rows are to be
    embedded by whoever goes on with the job. `summary` and `progress`: updated and called after
    each row. Raises OSError.
    """
    ranges = containing(job.ledger.entries, chosen)
    shards = _Retried(job, known, summary, pipeline_of(embedder).host_times)
    before, began = summary.seconds, time.monotonic()
    wanted = shards.retryable
    with closing(embedded(embedder, lines, ranges, params, known, wanted)) as rows:
        for item, record in rows:
            shards.take(item, record)
            summary.seconds = before + time.monotonic() - began
            if progress:
                progress(summary)
    shards.finish()


def has_unasked(entry: Entry) -> bool:
    """Whether a shard has rows whose hosts were not asked: their turn is at the job's end."""
    return entry.unasked > 0


def turns(
    job: JobFolder,
    chosen: Callable[[Entry], bool],
    summary: Summary,
    progress: Callable[[Summary], None] | None = None,
) -> Iterator[Callable[[Entry], bool]]:
    """Which shards to try again at a job's end, one time after the other: those that are chosen,
    then those with rows that were still not asked for, after a pause in which their hosts are left
    alone. `summary`: says how many rows wait, and counts the pauses, in which `progress` is called
    each second."""
    if any(map(chosen, job.ledger.done())):
        log.info("failed rows that may succeed another time are tried again")
    yield chosen
    for pause in PAUSES:
        summary.waiting = sum(entry.unasked for entry in job.ledger.done())
        if not summary.waiting:
            return
        waiting = f"{summary.waiting:,}"
        log.info("%s rows of hosts that are down are tried again in %.0f s", waiting, pause)
        _pause(pause, summary, progress)
        yield has_unasked
    summary.waiting = 0


def _pause(
    seconds: float, summary: Summary, progress: Callable[[Summary], None] | None = None
) -> None:
    """Waits; whoever shows the summary sees the time go by."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        time.sleep(min(1.0, end - now))
        summary.seconds += time.monotonic() - now
        if progress:
            progress(summary)


class _Retried:
    """The shards whose rows are tried again, one after the other."""

    def __init__(
        self, job: JobFolder, known: Known | None, summary: Summary, times: HostTimes
    ) -> None:
        self._job, self._known, self._summary, self._times = job, known, summary, times
        self._rows: Range | None = None  # of the shard that is under way
        self._new: list[tuple[Item, Record]] = []

    def retryable(self, rows: Range) -> set[int]:
        """The numbers of a shard's rows that are to be tried again."""
        entry = self._job.ledger.entries[rows.first]
        try:
            return stored.retryable(self._job.path / entry.file)
        except stored.Damaged as error:
            self._lost(entry, error)
            return set()

    def take(self, item: Item, record: Record) -> None:
        """A row that was tried again. The shard before its own is complete then."""
        if item.rows != self._rows:
            self.finish()
        self._rows = item.rows
        self._new.append((item, record))

    def finish(self) -> None:
        """Writes the shard that is under way again."""
        rows, new = self._rows, self._new
        self._rows, self._new = None, []
        if rows is None:
            return
        entry = self._job.ledger.entries[rows.first]
        file = self._job.path / entry.file
        try:
            image = self._job.manifest.image_column
            changed = stored.rewrite(file, file, entry, new, self._times, image)
        except stored.Damaged as error:
            self._lost(entry, error)
            return
        if self._known:
            self._known.save()
        self._job.ledger.add(changed)
        self._summary.failed += changed.failed
        self._summary.failed -= entry.failed
        self._summary.retried += len(new)
        self._summary.recovered += sum(record.error is None for _, record in new)

    def _lost(self, entry: Entry, error: Exception) -> None:
        lose(self._job, entry, error)
        drop(self._summary, entry.rows, entry.failed)


def lose(job: JobFolder, entry: Entry, why: object) -> None:
    """Has the rows of a damaged shard embedded again, and says so. Raises OSError."""
    warn_of_damage(job.path / entry.file, why)
    job.lost(entry)


def warn_of_damage(file: Path, error: object) -> None:
    """A line in the log on a shard that is damaged."""
    log.warning("%s is damaged, its rows are embedded again: %s", file, error)
