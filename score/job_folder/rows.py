"""The rows of a job that are to be done, embedded in one stream, whatever shards they are for."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.core.pairs import embed_pairs
from score.errors import RequestError
from score.job_folder import digests
from score.job_folder.digests import Digest
from score.job_folder.known import Known
from score.job_folder.ranges import Range
from score.tables.lines import Line, Lines


class Item(NamedTuple):
    """A row that is under way: its number in the input, the rows it was read for, its line without
    the row itself, and the hash of its image."""

    number: int
    rows: Range
    line: Line
    digest: Digest

    @property
    def is_last(self) -> bool:
        """Whether those rows end with it."""
        return self.number + 1 == self.rows.end


def embedded(
    embedder: Embedder,
    lines: Lines,
    ranges: Iterable[Range],
    params: Params,
    known: Known | None = None,
    wanted: Callable[[Range], Container[int]] | None = None,
) -> Generator[tuple[Item, Record], None, None]:
    """Each row of some ranges of the input beside its record, in order.

    known: what need not be computed again. wanted: the numbers of a range's rows that are embedded;
    by default all are. Raises RequestError where the input ends before a range does.
    """

    def items() -> Iterator[tuple[Item, Digest, Row]]:
        for rows in ranges:
            chosen = wanted(rows) if wanted else None
            for item, row in _items(lines, rows):
                if chosen is None or item.number in chosen:
                    yield item, item.digest, row

    if known:
        return known.embed(embedder, items(), params, lines.root)
    pairs = (
        (item, Row(digests.carrying(row.image, digest), row.text)) for item, digest, row in items()
    )
    return embed_pairs(embedder, pairs, params, root=lines.root, on_fetched=digests.note)


def _items(lines: Lines, rows: Range) -> Iterator[tuple[Item, Row]]:
    number = rows.first
    for line in islice(lines.after(rows.mark), rows.rows):
        yield Item(number, rows, line.bare(), Digest()), line.row
        number += 1
    if rows.end is not None and number < rows.end:
        raise RequestError(
            f"the input ends after {number:,} rows, and had {rows.end:,} when the job began"
        )
