"""Rows of an index, with what was found out about them, as CSV, parquet or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from score.errors import RequestError
from score.index.listing import plain
from score.storage import atomic

ENDINGS = (".csv", ".parquet", ".jsonl")

_AS_THEY_ARE = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_null,
)


class RowWriter(Protocol):
    """Takes batches of one schema."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Adds rows."""


def check_ending(file: Path) -> None:
    """Raises RequestError for the name of a file of another kind."""
    if file.suffix not in ENDINGS:
        raise RequestError(f"{file.name} must end in {', '.join(ENDINGS)}")


@contextmanager
def row_file(file: Path, schema: pa.Schema) -> Iterator[RowWriter]:
    """A file that appears when the block ends without an error.

    In CSV and JSON lines bytes are base64, times ISO 8601; in CSV lists and objects are JSON.
    Raises RequestError for an ending that is not known, OSError.
    """
    check_ending(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.file(file) as part:
        if file.suffix == ".parquet":
            with pq.ParquetWriter(part, schema) as parquet:
                yield parquet
        elif file.suffix == ".csv":
            with pc.CSVWriter(part, _for_csv(schema)) as writer:
                yield _Csv(writer)
        else:
            with part.open("w", encoding="utf-8") as stream:
                yield JsonLines(stream)


class JsonLines:
    """An object a line, to a stream."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Adds rows."""
        for row in batch.to_pylist():
            self._stream.write(json.dumps(plain(row), ensure_ascii=False) + "\n")


class _Csv:
    def __init__(self, writer: pc.CSVWriter) -> None:
        self._writer = writer

    def write_batch(self, batch: pa.RecordBatch) -> None:
        schema = _for_csv(batch.schema)
        arrays = [
            column if field.type == column.type else _texts(column)
            for field, column in zip(schema, batch.columns, strict=True)
        ]
        self._writer.write_batch(pa.record_batch(arrays, schema=schema))


def _for_csv(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [
            field if any(is_kind(field.type) for is_kind in _AS_THEY_ARE) else _as_text(field)
            for field in schema
        ]
    )


def _as_text(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.string())


def _texts(column: pa.Array) -> pa.Array:
    return pa.array([_text(plain(value)) for value in column.to_pylist()], pa.string())


def _text(value: object) -> str | None:
    return (
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )


def beside(
    before: dict[str, pa.Array], rows: pa.RecordBatch, after: dict[str, pa.Array]
) -> pa.RecordBatch:
    """A batch of the rows with columns before and after theirs. A column of the rows that has the
    name of one of these is `row.NAME`."""
    taken = {*before, *after}
    names = [f"row.{name}" if name in taken else name for name in rows.schema.names]
    arrays = [*before.values(), *rows.columns, *after.values()]
    return pa.record_batch(arrays, names=[*before, *names, *after])
