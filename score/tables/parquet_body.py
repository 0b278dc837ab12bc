"""A parquet request body → rows. The sizes that it states are checked before it is unpacked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import chain
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from score.contract.limits import check_body_size, check_row_count
from score.contract.rows import COLUMNS, Row
from score.errors import BadColumns, RequestError, RequestTooLarge
from score.tables.checked_parquet import open_parquet
from score.tables.lines import check_header
from score.tables.parquet_cells import cells_of, is_textual
from score.tables.parquet_sizes import check_pages, check_schema
from score.wording.quoting import quoted

_TIMES, _BESIDE = 16, 4 * 2**20  # of the body, and beside: what is in its cells
_NUMERIC = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)


def read(source: IO[bytes], *, max_rows: int, max_bytes: int) -> list[Row]:
    """The rows of a parquet table with an `image` column, a `text` column or both.

    `max_bytes` holds for the cells together, too, and so do 16 times the body and 4 MiB beside: a
    few bytes of parquet can stand for any number of cells. Numbers are cells like any other, as in
    JSON; columns of lists, structs or dates are
    refused. Raises BadColumns, RequestTooLarge, RequestError.
    """
    try:
        check_schema(source, "the body")
        metadata = pq.read_metadata(source)
        schema = metadata.schema.to_arrow_schema()
        check_header(schema.names, "the body")
        names = [name for name in COLUMNS if name in schema.names]
        textual = [name for name in names if _is_textual(name, schema.field(name).type)]
        _check_sizes(source, metadata, names, max_rows, max_bytes)
        # As a dictionary, a string that many rows share is in memory once.
        with open_parquet(source, metadata=metadata, read_dictionary=textual) as file:
            table = file.read(names, use_threads=False)
        columns = {
            name: [cell for chunk in table[name].chunks for cell in cells_of(chunk)]
            for name in names
        }
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestError(f"the body is no readable parquet table: {error}") from None
    _check_cells(source, sum(map(_length, chain(*columns.values()))), max_bytes)
    return [
        Row(**dict(zip(names, cells, strict=True))) for cells in zip(*columns.values(), strict=True)
    ]


def _is_textual(name: str, kind: pa.DataType) -> bool:
    """Whether a column holds strings or bytes. Raises BadColumns unless it does, or numbers."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_textual(plain):
        return True
    if any(is_kind(plain) for is_kind in _NUMERIC):
        return False
    raise BadColumns(f"column {quoted(name)} must hold strings, not {str(kind)[:80]}")


def _check_sizes(
    source: IO[bytes],
    metadata: pq.FileMetaData,
    names: Sequence[str],
    max_rows: int,
    max_bytes: int,
) -> None:
    """Raises RequestTooLarge by the sizes in the footer, RequestError by those of the pages."""
    check_row_count(metadata.num_rows, max_rows)
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    numbers = [paths.index(name) for name in names]
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    sizes = (group.column(number).total_uncompressed_size for group in groups for number in numbers)
    _check_cells(source, sum(sizes), max_bytes)
    for group in range(metadata.num_row_groups):
        check_pages(source, "the body", metadata, group, numbers, max_bytes, times_packed=0)


def _check_cells(source: IO[bytes], characters: int, max_bytes: int) -> None:
    """Raises RequestTooLarge for more in the cells than a body of this size may stand for."""
    check_body_size(characters, max_bytes)
    size = source.seek(0, io.SEEK_END)
    if characters > _BESIDE + _TIMES * size:
        raise RequestTooLarge(
            f"the cells, those that repeat others included, are {characters:,} bytes; at most "
            f"{_BESIDE:,} and {_TIMES} times the {size:,} of the body: send fewer rows"
        )


def _length(cell: object) -> int:
    return len(cell) if isinstance(cell, (str, bytes)) else 0
