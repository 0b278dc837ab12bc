"""How a job of several processes goes, counted in the one that has its folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from score.executors.work import Partial, Result
from score.job_folder.ledger import Entry
from score.jobs.summary import Summary, add_earlier, drop


class Tally:
    """How a job goes: what is complete, and, while workers tell, what is under way."""

    def __init__(self, summary: Summary, progress: Callable[[Summary], None] | None) -> None:
        """summary: is kept up to date, by `show`. progress: is called with it."""
        self.summary, self._progress = summary, progress
        self._complete = Summary()
        self._began = self._latest = time.monotonic()
        self._position = (0, 0)

    def earlier(self, entry: Entry) -> None:
        """Adds a shard of an earlier run."""
        add_earlier(self._complete, entry.rows, entry.failed, 0)
        self.reached(entry.end, entry.position)

    def reached(self, row: int, position: int) -> None:
        """The input is known up to a row. position: of it."""
        self._position = max(self._position, (row, position))

    def add(self, result: Result, entry: Entry) -> None:
        """Adds a shard that is complete."""
        complete, before = self._complete, result.task.entry
        complete.failed += entry.failed
        if before is None:
            complete.rows += entry.rows
        else:
            complete.failed -= before.failed
        complete.retried += result.retried
        complete.recovered += result.recovered

    def drop(self, entry: Entry) -> None:
        """Takes a shard away that turned out to be damaged."""
        drop(self._complete, entry.rows, entry.failed)

    def seconds(self) -> float:
        """Since the last call."""
        before, self._latest = self._latest, time.monotonic()
        return round(self._latest - before, 3)

    def show(self, partials: Iterable[Partial] = ()) -> Summary:
        """Brings the summary up to date, and returns it. partials: what is under way."""
        complete, summary = self._complete, self.summary
        rows, failed = complete.rows, Counter(complete.failed)
        for partial in partials:
            rows += partial.rows
            failed.update(partial.failed)
        row, position = self._position
        summary.rows, summary.failed, summary.earlier = rows, failed, complete.earlier
        summary.earlier_errors = complete.earlier_errors
        summary.retried, summary.recovered = complete.retried, complete.recovered
        summary.position = position * rows // row if row else 0
        summary.seconds = time.monotonic() - self._began
        if self._progress:
            self._progress(summary)
        return summary
