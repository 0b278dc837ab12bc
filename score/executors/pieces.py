"""The rows of a job that are to be done, cut into tasks of one shard each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from score.errors import RequestError
from score.executors.work import Task
from score.job_folder.ranges import Range
from score.tables.lines import Lines


class Pieces:
    """The rows of some ranges of the input, cut into tasks of one shard each.

    The input is read for it, as far as tasks are asked for: only that tells where a shard ends.
    row, position: how far that is. total: the input's rows, once its end has been reached.
    """

    def __init__(self, lines: Lines, todo: Iterable[Range], shard_rows: int) -> None:
        self._lines, self._todo, self._most = lines, todo, shard_rows
        self.row = self.position = 0
        self.total: int | None = None

    def __iter__(self) -> Iterator[Task]:
        """Raises RequestError where the input ends before a range does."""
        for rows in self._todo:
            if rows.rows is not None and rows.rows <= self._most:
                yield Task(rows)
            else:
                yield from map(Task, self._cut(rows))

    def _cut(self, rows: Range) -> Iterator[Range]:
        first, mark, count = rows.first, rows.mark, 0
        for line in islice(self._lines.after(rows.mark), rows.rows):
            count += 1
            if count == self._most:
                self.row, self.position = first + count, line.position
                yield Range(first, count, mark)
                first, mark, count = first + count, line.mark, 0
        if rows.end is not None and first + count < rows.end:
            raise RequestError(
                f"the input ends after {first + count:,} rows, and had {rows.end:,} when the job "
                "began"
            )
        if rows.rows is None:
            self.total = self.row = first + count
            self.position = self._lines.size
        if count:
            yield Range(first, count, mark)
