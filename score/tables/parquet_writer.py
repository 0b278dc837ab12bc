"""Parquet files of records, written a row group at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from score.contract.rows import ERRORS, FEATURES, Record
from score.tables.base_writer import Writer, error_cells, vectors_of
from score.tables.column_types import stored_as

_ROW_GROUP = 4096  # rows, or fewer where their cells are long
_ROW_GROUP_CHARACTERS = 32 * 2**20


class ParquetWriter(Writer):
    """Parquet: the columns with their types, vectors as lists of float32, errors as three columns;
    the file's key-value metadata says which model made them."""

    says_about = True

    @override
    def _open(self, *parts: Path) -> None:
        vector = pa.list_(pa.float32())
        types = [(name, stored_as(name, self.types)) for name in self.columns]
        types += [(name, vector) for name in FEATURES]
        types += list(zip(ERRORS, (pa.string(), pa.string(), pa.bool_()), strict=True))
        (part,) = parts
        self._rows = Rows(part, pa.schema(types, metadata=dict(self.about) or None))

    @override
    def _write(self, kept: Sequence[object], record: Record) -> None:
        self._rows.add((*kept, *vectors_of(record), *error_cells(record)), kept)

    @override
    def _close(self) -> None:
        self._rows.close()


class Rows:
    """The rows of a parquet file that is being written, a row group at a time."""

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        """Raises OSError."""
        self._schema = schema
        self._file = parquet_writer(file, schema)
        self._rows: list[tuple[object, ...]] = []
        self._characters = 0

    def add(self, row: tuple[object, ...], kept: Sequence[object]) -> None:
        """Adds a row, whose cells are in the schema's order. kept: those that may be long."""
        self._rows.append(row)
        self._characters += sum([len(cell) for cell in kept if isinstance(cell, str)])
        if len(self._rows) >= _ROW_GROUP or self._characters >= _ROW_GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [
            pa.array(list(cells), type=field.type)
            for cells, field in zip(columns, self._schema, strict=True)
        ]
        self._file.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows.clear()
        self._characters = 0

    def close(self) -> None:
        """Completes the file."""
        if self._rows:
            self._flush()
        self._file.close()


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A parquet file of these columns, opened for writing.

    Only columns of strings are dictionary-encoded: the numbers of vectors hardly repeat, so that
    dictionaries would double the time and make the file 7 % larger.
    """
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(path, schema, use_dictionary=strings, write_page_checksum=True)
