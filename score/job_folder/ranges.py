"""Which rows of a job are still to be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from score.job_folder.ledger import Entry, in_order
from score.tables.lines import Mark


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive rows of the input.

    first: number of the first, from 0. rows: how many; None for all that follow. mark: where the
    input has them; None for its start.
    """

    first: int
    rows: int | None
    mark: Mark | None

    @property
    def end(self) -> int | None:
        """The number of the row after them; None where they are the last."""
        return None if self.rows is None else self.first + self.rows


def missing(entries: Mapping[int, Entry], rows: int | None) -> list[Range]:
    """The rows that no shard holds, in order.

    entries: by their first row. rows: of the input; None while that is not known.
    """
    found, end, mark = [], 0, None
    for entry in in_order(entries):
        if entry.first > end:
            found.append(Range(end, entry.first - end, mark))
        end, mark = entry.end, entry.mark
    if rows is None or end < rows:
        found.append(Range(end, None, mark))
    return found


def containing(entries: Mapping[int, Entry], chosen: Callable[[Entry], bool]) -> list[Range]:
    """The rows of the shards that are chosen, in order; without one after missing rows, since
    nothing tells where the input has it."""
    found, end, mark = [], 0, None
    for entry in in_order(entries):
        if entry.first == end and chosen(entry):
            found.append(Range(entry.first, entry.rows, mark))
        end, mark = entry.end, entry.mark
    return found
