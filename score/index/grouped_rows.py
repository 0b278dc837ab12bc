"""Groups of duplicates, and clusters, as rows of a file and as sections of a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from score.contract.rows import IMAGE, TEXT
from score.index.contact_sheet import Section
from score.index.duplicates import Groups, with_cosines
from score.index.index import Hit, group_hits
from score.index.lance import LanceTable
from score.index.listing import shown
from score.index.row_file import JsonLines, beside, row_file

if TYPE_CHECKING:  # imports scikit-learn, which groups do without
    from score.index.clusters import Clustering

NONE = "(no cluster)"

_DIGITS = 6
_EXAMPLE = 30  # characters
_LONGEST_EXAMPLE = 80  # a longer cell is an image or a text, not a name


def write_groups(table: LanceTable, groups: Groups, output: Path | IO[str]) -> None:
    """A row for each row of a group: `group`, its number from 1; the row's columns; and `cosine`,
    with the group's first row. output: a file by its ending, or a stream for lines of JSON.

    Raises RequestError, OSError.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        for numbers, cosines, rows in with_cosines(table, groups):
            after = {"cosine": pa.array(cosines.round(_DIGITS))}
            yield beside({"group": pa.array(numbers + 1)}, rows, after)

    _write(batches(), _schema(table, {"group": pa.int64()}, {"cosine": pa.float64()}), output)


def write_clusters(
    table: LanceTable, clustering: Clustering, names: Sequence[str | None], output: Path | IO[str]
) -> None:
    """A row for each row of the index, in its order: `cluster`, its number from 1, and `name`, both
    null for none; the row's columns; and `distance`, one less the cosine with the centre.

    names: of the clusters. output: as of `write_groups`. Raises RequestError, OSError.
    """
    numbers = pa.array(clustering.numbers + 1, pa.int64(), mask=clustering.numbers < 0)
    called = pa.array([*names, None], pa.string()).take(
        pa.array(np.where(clustering.numbers < 0, len(names), clustering.numbers))
    )
    apart = (1 - clustering.cosines.astype(np.float64)).round(_DIGITS)
    distances = pa.array(apart, mask=clustering.numbers < 0)

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for rows in table.rows():
            part = slice(start, start + len(rows))
            before = {"cluster": numbers[part], "name": called[part]}
            yield beside(before, rows, {"distance": distances[part]})
            start += len(rows)

    before = {"cluster": pa.int64(), "name": pa.string()}
    _write(batches(), _schema(table, before, {"distance": pa.float64()}), output)


def group_sections(
    table: LanceTable, groups: Groups, most: int, most_rows: int
) -> Iterator[Section]:
    """The first `most` groups, and of each the first `most_rows` rows."""
    hits = group_hits(table, groups, most, most_rows)
    for number, (size, some) in enumerate(zip(groups.sizes.tolist(), hits, strict=True), start=1):
        note = f"{size:,} rows"
        if size > len(some):
            note += f", the first {len(some)} of them"
        yield Section(f"Group {number}", f"{note}; with cosines to the first", some)


def cluster_sections(
    examples: Sequence[Sequence[Hit]], sizes: Iterable[int], names: Sequence[Sequence[str]]
) -> Iterator[Section]:
    """A section a cluster. examples: rows of each, as of `cluster_hits`; names: of each."""
    for number, (hits, size, called) in enumerate(zip(examples, sizes, names, strict=True), 1):
        heading = f"{number}: {called[0]}" if called else f"Cluster {number}"
        others = f"also near: {', '.join(called[1:])}; " if called[1:] else ""
        note = f"{size:,} {'row' if size == 1 else 'rows'}; {others}those nearest to the centre"
        yield Section(heading, note, hits)


def example(row: dict[str, Any]) -> str:
    """A row's name for a line: its image or text, or another short cell; empty if all are long."""
    for name in (IMAGE, TEXT, *row):
        value = row.get(name)
        if isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_EXAMPLE:
            return shown(value, _EXAMPLE)
    return ""


def _schema(
    table: LanceTable, before: dict[str, pa.DataType], after: dict[str, pa.DataType]
) -> pa.Schema:
    """The schema of `beside`."""
    columns = pa.schema(list(table.schema)[:-1])
    empty = beside(_empty(before), pa.RecordBatch.from_pylist([], schema=columns), _empty(after))
    return empty.schema


def _empty(types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    return {name: pa.array([], kind) for name, kind in types.items()}


def _write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, output: Path | IO[str]) -> None:
    if not isinstance(output, Path):
        lines = JsonLines(output)
        for batch in batches:
            lines.write_batch(batch)
        return
    with row_file(output, schema) as file:
        for batch in batches:
            file.write_batch(batch)
