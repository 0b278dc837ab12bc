"""Embeds a table into a job's folder, and goes on with a job that stopped.

    rows that no shard holds ──▶ Embedder.embed ──▶ shard ──▶ its name ──▶ its line in the ledger

Rows flow through one stream, whatever shards they are for. A shard ends after some thousand rows,
or some minutes, so that a kill repeats little work of a slow model, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from score.contract.params import Params
from score.contract.rows import Record
from score.core.embedder import Embedder, pipeline_of
from score.job_folder.folder import JobFolder, known_of
from score.job_folder.inspection import OTHER_BYTES, Inspection
from score.job_folder.known import VECTORS_BYTES, Known
from score.job_folder.ledger import Entry
from score.job_folder.manifest import Manifest, key_of
from score.job_folder.ranges import missing
from score.job_folder.retry import has_unasked, lose, retry, turns
from score.job_folder.rows import Item, embedded
from score.job_folder.shard import Shard
from score.jobs.summary import Summary, add_earlier, count, drop, is_above_now
from score.tables.lines import ALL_TEXT, Lines
from score.type_aliases import VectorType

SHARD_ROWS = 10_000
_LONGEST = 300.0  # seconds of a shard
_ENOUGH = 1_000  # rows before a rate of errors means anything


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job runs.

    shard_rows: most rows of a shard. vectors: the type of their numbers. max_error_rate: the share
    of failed rows, from 0 to 1, above which the job stops early. force_new: an older job in the
    folder is removed. retry_failed: rows that failed and may succeed another time are tried again.
    columns: the input's own names of our columns, as for `open_lines`. vector_cache: a folder in
    which vectors outlive the job; None for none. vector_cache_bytes: of the vectors that are kept
    there, and during the job; 0: none are, and what an earlier run kept is removed.
    """

    shard_rows: int = SHARD_ROWS
    vectors: VectorType = "float32"
    max_error_rate: float | None = None
    force_new: bool = False
    retry_failed: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    vector_cache: Path | None = None
    vector_cache_bytes: int = VECTORS_BYTES

    def retries(self, entry: Entry) -> bool:
        """Whether a shard's failed rows are tried again at the job's end: on demand, or where some
        were not asked for, since their host had not answered others."""
        return entry.retryable > 0 if self.retry_failed else has_unasked(entry)

    def stops(self, summary: Summary) -> bool:
        """Whether so many rows have failed that the job stops."""
        return is_above_now(summary, self.max_error_rate, _ENOUGH)


def embed_into(
    embedder: Embedder,
    lines: Lines,
    folder: Path,
    params: Params,
    options: JobOptions = JobOptions(),
    progress: Callable[[Summary], None] | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Embeds every row of an opened table into shards in `folder`, and those alone that no shard
    of an earlier run holds.

    Rows that fail are written with their error. `progress` is called after each row. `summary`: an
    object that is updated while the job runs; it counts the rows of earlier runs, too. Raises
    RequestError for a folder that another process writes into, or that holds something else, such
    as a job of another model or input; OSError where it cannot be written: shards that are complete
    stay. Also when it is interrupted, what is embedded is kept.
    """
    summary = summary or Summary()
    wanted = Manifest.of(embedder, params, options.vectors, lines, options.columns)
    with JobFolder(folder, wanted, force_new=options.force_new) as job:
        for entry in job.ledger.done():
            add_earlier(summary, entry.rows, entry.failed, entry.position)
        if not options.vector_cache_bytes:
            job.forget_known()
        key = key_of(job.manifest.identity, embedder.settings, params)
        with (
            known_of(folder, key, options.vector_cache, options.vector_cache_bytes) as known,
            Inspection(job) as inspection,
        ):
            pipeline_of(embedder).host_times.take(0)  # those of others, before this job
            run = _Run(job, embedder, known, options, progress, summary)
            run.go_on(lines, params)
            if not summary.stopped:
                for entry in inspection.damaged():
                    lose(job, entry, OTHER_BYTES)
                    drop(summary, entry.rows, entry.failed)
                run.go_on(lines, params)
            if not summary.stopped:
                for chosen in turns(job, options.retries, summary, progress):
                    retry(job, embedder, known, lines, params, chosen, summary, progress)
                run.go_on(lines, params)  # rows of shards that turned out to be damaged
        if not summary.stopped:
            job.forget_known()
    return summary


class _Run:
    """One process's share of a job."""

    def __init__(
        self,
        job: JobFolder,
        embedder: Embedder,
        known: Known | None,
        options: JobOptions,
        progress: Callable[[Summary], None] | None,
        summary: Summary,
    ) -> None:
        self._job, self._embedder, self._known = job, embedder, known
        self._options = options
        self._progress, self._summary = progress, summary
        self._about = job.manifest.identity.metadata()
        self._shard: Shard | None = None
        self._types = ALL_TEXT

    def go_on(self, lines: Lines, params: Params) -> None:
        """Embeds what no whole shard holds."""
        job, summary, self._types = self._job, self._summary, lines.types
        todo = missing(job.ledger.entries, job.manifest.rows)
        before, began = summary.seconds, time.monotonic()
        with closing(embedded(self._embedder, lines, todo, params, self._known)) as rows:
            try:
                for item, record in rows:
                    self._take(item, record)
                    seconds = before + time.monotonic() - began
                    count(summary, record, item.line.position, seconds)
                    if self._progress:
                        self._progress(summary)
                    if self._options.stops(summary):
                        summary.stopped = True
                        break
            finally:
                self._finish()  # also a shard whose other rows are not embedded now
        if todo and todo[-1].rows is None and not summary.stopped:
            self._job.counted(sum(entry.rows for entry in job.ledger.done()))

    def _take(self, item: Item, record: Record) -> None:
        shard = self._shard = self._shard or self._begin(item.number)
        shard.add(item.line, record, item.digest.sha256)
        ends = shard.rows >= self._options.shard_rows or shard.seconds >= _LONGEST
        if ends or item.is_last:
            self._finish()

    def _begin(self, first: int) -> Shard:
        manifest = self._job.manifest
        return Shard(
            self._job.path,
            self._job.shard(first),
            first,
            manifest.columns,
            manifest.dimension,
            self._about,
            vectors=self._options.vectors,
            image=manifest.image_column,
            types=self._types,
        )

    def _finish(self) -> None:
        shard, self._shard = self._shard, None
        times = pipeline_of(self._embedder).host_times
        if shard and (entry := shard.finish(times)):
            if self._known:
                self._known.save()
            self._job.ledger.add(entry)
