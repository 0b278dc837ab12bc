"""A parquet request body → rows. The sizes that it states are checked before it is unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from score.contract.limits import check_body_size, check_row_count
from score.contract.rows import COLUMNS, Row, check_columns
from score.errors import BadColumns, RequestError

_TEXTUAL = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
)
_NUMERIC = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)


def read(source: IO[bytes], *, max_rows: int, max_bytes: int) -> list[Row]:
    """The rows of a parquet table with an `image` column, a `text` column or both.

    `max_bytes` holds for the cells together, too: a few bytes of parquet can stand for any number
    of cells. Numbers are cells like any other, as in JSON; columns of lists, structs or dates are
    refused. Raises BadColumns, RequestTooLarge, RequestError.
    """
    try:
        metadata = pq.read_metadata(source)
        schema = metadata.schema.to_arrow_schema()
        check_columns(schema.names)
        names = [name for name in COLUMNS if name in schema.names]
        textual = [name for name in names if _is_textual(name, schema.field(name).type)]
        _check_sizes(metadata, names, max_rows, max_bytes)
        # As a dictionary, a string that many rows share is in memory once.
        with pq.ParquetFile(source, metadata=metadata, read_dictionary=textual) as file:
            table = file.read(names, use_threads=False)
        columns = {name: _cells(table[name]) for name in names}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestError(f"the body is no readable parquet table: {error}") from None
    check_body_size(sum(map(_length, chain(*columns.values()))), max_bytes)
    return [
        Row(**dict(zip(names, cells, strict=True))) for cells in zip(*columns.values(), strict=True)
    ]


def _is_textual(name: str, kind: pa.DataType) -> bool:
    """Whether a column holds strings or bytes. Raises BadColumns unless it does, or numbers."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if any(is_kind(plain) for is_kind in _TEXTUAL):
        return True
    if any(is_kind(plain) for is_kind in _NUMERIC):
        return False
    raise BadColumns(f"column {name!r} must hold strings, not {str(kind)[:80]}")


def _check_sizes(
    metadata: pq.FileMetaData, names: Sequence[str], max_rows: int, max_bytes: int
) -> None:
    """Raises RequestTooLarge by the sizes in the file's metadata."""
    check_row_count(metadata.num_rows, max_rows)
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    numbers = [paths.index(name) for name in names]
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    sizes = (group.column(number).total_uncompressed_size for group in groups for number in numbers)
    check_body_size(sum(sizes), max_bytes)


def _cells(column: pa.ChunkedArray) -> list[object]:
    cells: list[object] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            values = chunk.dictionary.to_pylist()
            cells += [None if at is None else values[at] for at in chunk.indices.to_pylist()]
        else:
            cells += chunk.to_pylist()
    return cells


def _length(cell: object) -> int:
    return len(cell) if isinstance(cell, (str, bytes)) else 0
