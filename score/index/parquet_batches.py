"""Batches of a parquet file's columns, of which lists of a fixed length may be null.

pyarrow writes nulls among lists of a fixed length, and refuses to read them: a row without a vector
would make the file unreadable. What makes such a list one of a fixed length is only Arrow's schema
in the footer. So these columns are read with a footer that does not show it, as lists.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from score.errors import RequestError
from score.tables.checked_parquet import open_parquet
from score.tables.parquet_sizes import check_pages

ROWS = 4096
"""Of a batch."""

_ARROW_SCHEMA = b"ARROW:schema"
_MARK = b"PAR1"


def read_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of each row group, whose pages are measured before they are read.

    Raises RequestError for a page that is too large, OSError and pa.ArrowException.
    """
    metadata = pq.read_metadata(path)
    schema = metadata.schema.to_arrow_schema()
    fixed = [name for name in columns if pa.types.is_fixed_size_list(schema.field(name).type)]
    others = [name for name in columns if name not in fixed]
    leaves = range(metadata.num_columns)
    with (
        path.open("rb") as stream,
        open_parquet(path, metadata=metadata) as file,
        open_parquet(path, metadata=_without_arrow_schema(path)) as plain,
    ):
        for group in range(metadata.num_row_groups):
            check_pages(stream, str(path), metadata, group, leaves)
            if not fixed:
                yield from file.iter_batches(ROWS, row_groups=[group], columns=others)
            elif not others:
                yield from plain.iter_batches(ROWS, row_groups=[group], columns=fixed)
            else:
                left = file.iter_batches(ROWS, row_groups=[group], columns=others)
                right = plain.iter_batches(ROWS, row_groups=[group], columns=fixed)
                yield from _beside(path, left, right)


def _beside(
    path: Path, left: Iterator[pa.RecordBatch], right: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Batches of the same rows as batches of all their columns."""
    for one, other in zip(left, right, strict=True):
        if len(one) != len(other):
            raise RequestError(f"{path}: its columns differ in their numbers of rows")
        names = [*one.schema.names, *other.schema.names]
        yield pa.record_batch([*one.columns, *other.columns], names=names)


def _without_arrow_schema(path: Path) -> pq.FileMetaData:
    """The file's footer, in which Arrow's schema has another name, so that it is not used."""
    with path.open("rb") as stream:
        end = stream.seek(-8, io.SEEK_END)
        size = int.from_bytes(stream.read(4), "little")
        stream.seek(end - size)
        footer = stream.read(size).replace(_ARROW_SCHEMA, _ARROW_SCHEMA.lower())
    return pq.read_metadata(io.BytesIO(_MARK + footer + size.to_bytes(4, "little") + _MARK))
