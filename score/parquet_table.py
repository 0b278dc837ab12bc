"""Parquet files as a job's rows, read a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from score.errors import RequestError
from score.rows import COLUMNS, IMAGE, Row, check_columns
from score.tables import ERRORS, FEATURES, Line, distinct, kept_cells

SUFFIXES = (".parquet", ".pqt")

_BATCH = 64  # rows in memory at a time: their images may be inline


class ParquetTable:
    """A parquet file with an `image` column, a `text` column or both, read as it is asked for.

    Use it as a context manager. Cells of the other columns are kept as text, lists and structs as
    JSON; the vectors of a table that a job of ours wrote are not read. Raises BadColumns for a
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
        is_ours = set(ERRORS) <= set(names)
        self._read = [name for name in names if not (is_ours and name in FEATURES)]

    def __enter__(self) -> ParquetTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Line]:
        image = self.columns.index(IMAGE) if IMAGE in self.columns else None
        for position, cells in enumerate(self._rows(), 1):
            row = Row(**{name: cells[name] for name in COLUMNS if name in cells})
            kept = [_text(cells.get(name)) for name in self.columns]
            yield Line(row, kept_cells(kept, image), position)

    def _rows(self) -> Iterator[dict[str, object]]:
        try:
            for batch in self._file.iter_batches(_BATCH, columns=self._read):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RequestError(f"{self.path.name} cannot be read: {error}") from error


def _text(cell: object) -> str | None:
    """A cell as the output's columns hold it; nothing of bytes, which are inline images."""
    if cell is None or isinstance(cell, (bytes, bytearray)):
        return None
    return json.dumps(cell, default=str) if isinstance(cell, (list, dict)) else str(cell)
