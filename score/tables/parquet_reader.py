"""Parquet files as a job's rows, read a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from score.contract.rows import COLUMNS, FEATURES, IMAGE, Row, check_columns, is_result
from score.errors import RequestError
from score.tables.lines import Line, distinct, kept_cells

SUFFIXES = (".parquet", ".pqt")

_BATCH = 64  # rows in memory at a time: their images may be inline


class ParquetTable:
    """A parquet file with an `image` column, a `text` column or both, read lazily.

    Use it as a context manager. Cells of the other columns are kept as text, lists and structs as
    JSON; the vectors of a table that `score embed` wrote are not read. Raises BadColumns for a
    file without a usable column, RequestError for what is no parquet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path.parent
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RequestError(f"{path.name} is no readable parquet table: {error}") from None
        names = self._file.schema_arrow.names
        try:
            check_columns(names)
        except RequestError:
            self._file.close()
            raise
        self.columns = distinct(names)
        self.size = self._file.metadata.num_rows
        is_ours = is_result(names)
        # By number: other columns' names may be repeated.
        self._read = [n for n, name in enumerate(names) if not (is_ours and name in FEATURES)]
        self._names = names

    def __enter__(self) -> ParquetTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Line]:
        columns = {name: self._names.index(name) for name in COLUMNS if name in self._names}
        for position, cells in enumerate(self._rows(), 1):
            row = Row(**{name: cells[number] for name, number in columns.items()})
            kept = [_text(cells.get(number)) for number in range(len(self.columns))]
            yield Line(row, kept_cells(kept, columns.get(IMAGE)), position)

    def _rows(self) -> Iterator[dict[int, object]]:
        """Each row's cells by the number of their column."""
        names = [self._names[number] for number in self._read]
        try:
            for batch in self._file.iter_batches(_BATCH, columns=names):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield dict(zip(self._read, cells, strict=True))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RequestError(f"{self.path.name} cannot be read: {error}") from error


def _text(cell: object) -> str | None:
    """A cell as the output's columns hold it; None for bytes, which are inline images."""
    if cell is None or isinstance(cell, (bytes, bytearray)):
        return None
    return json.dumps(cell, default=str) if isinstance(cell, (list, dict)) else str(cell)
