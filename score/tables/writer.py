"""Files of records: parquet, CSV, JSON lines or NumPy arrays, written as the records come.

An output file appears under its name only when it is complete. Knows nothing of models.
"""

from __future__ import annotations

import csv
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from score.contract.rows import ERRORS, FEATURES, Record, Vector, is_result
from score.errors import BadColumns, RequestError

_ROW_GROUP = 4096  # rows, or fewer where their cells are long
_ROW_GROUP_CHARACTERS = 32 * 2**20


class Writer(ABC):
    """A file of records beside the columns they came with. Use it as a context manager: leaving
    it puts the file in its place, leaving it by an exception removes what was begun."""

    reserved: tuple[str, ...] = (*FEATURES, *ERRORS)

    def __init__(self, path: Path, columns: Sequence[str], dimension: int) -> None:
        gone = replaced(columns, self.reserved)
        self._places = [place for place, name in enumerate(columns) if name not in gone]
        self.path = path
        self.columns = [columns[place] for place in self._places]
        self.dimension = dimension
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in self.files_of(path):
            if file.is_dir():
                raise RequestError(f"{file} is a folder")
        with ExitStack() as undo:
            undo.callback(self._discard)
            self._open()
            undo.pop_all()

    def part(self, path: Path | None = None) -> Path:
        """Where a file is written until it is complete."""
        path = path or self.path
        return path.with_name(path.name + ".part")

    @abstractmethod
    def _open(self) -> None: ...

    def write(self, kept: Sequence[str | None], record: Record) -> None:
        """Adds a record beside the cells of the columns that it came with."""
        self._write(self._own(kept), record)

    def _own(self, kept: Sequence[str | None]) -> list[str | None]:
        """The cells of `columns`."""
        return [kept[place] for place in self._places]

    @abstractmethod
    def _write(self, kept: Sequence[str | None], record: Record) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        """Every file that may be written for an output of this name."""
        return [path]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(Exception):  # what went wrong first is what counts
                self._close()
            self._discard()
            return
        try:
            self._close()
        except BaseException:
            self._discard()
            raise
        for path in self.files_of(self.path):
            if self.part(path).exists():
                os.replace(self.part(path), path)
            else:  # not written this time: what is there is of an output that this one replaces
                path.unlink(missing_ok=True)

    def _discard(self) -> None:
        for path in self.files_of(self.path):
            self.part(path).unlink(missing_ok=True)


def replaced(columns: Sequence[str], reserved: Sequence[str]) -> list[str]:
    """The columns of an input that an output leaves out, having its own of those names.

    reserved: the output's own columns. Only a table that we wrote, which the errors' columns show,
    has any. Raises BadColumns where another table has a column of such a name.
    """
    if is_result(columns):
        return [name for name in columns if name in (*reserved, *ERRORS)]
    for name in columns:
        if name in reserved:
            raise BadColumns(
                f"the input already has a column {name!r}, which the output needs for its own: "
                "rename it"
            )
    return []


class ParquetWriter(Writer):
    """Parquet: the columns as strings, vectors as lists of float32, errors as three columns."""

    @override
    def _open(self) -> None:
        vector = pa.list_(pa.float32())
        types = [(name, pa.string()) for name in self.columns]
        types += [(name, vector) for name in FEATURES]
        types += list(zip(ERRORS, (pa.string(), pa.string(), pa.bool_()), strict=True))
        self._schema = pa.schema(types)
        self._file = parquet_writer(self.part(), self._schema)
        self._rows: list[tuple[object, ...]] = []
        self._characters = 0

    @override
    def _write(self, kept: Sequence[str | None], record: Record) -> None:
        self._rows.append((*kept, *_vectors(record), *error_cells(record)))
        self._characters += sum(len(cell) for cell in kept if cell)
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

    @override
    def _close(self) -> None:
        if self._rows:
            self._flush()
        self._file.close()


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A parquet file of these columns, opened for writing.

    Only of strings are dictionaries kept: of vectors' numbers, no two of which are alike, they
    would take twice the time, and make the file 7 % larger.
    """
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(path, schema, use_dictionary=strings)


class CsvWriter(Writer):
    """CSV: vectors as JSON lists."""

    @override
    def _open(self) -> None:
        self._file: IO[str] = self.part().open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow([*self.columns, *self.reserved])

    @override
    def _write(self, kept: Sequence[str | None], record: Record) -> None:
        vectors = ["" if v is None else json.dumps(v.tolist()) for v in _vectors(record)]
        self._csv.writerow([*kept, *vectors, *error_cells(record)])

    @override
    def _close(self) -> None:
        self._file.close()


class VerdictWriter(CsvWriter):
    """CSV: what each image was called, in place of its vectors.

    `label` and `confidence` (a probability), `label_2` and `confidence_2` and so on to `top`,
    where `placed` also `file`, then the errors.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], top: int = 1, *, placed: bool = False
    ) -> None:
        self.reserved = self.columns_of(top, placed=placed)
        self._top, self._placed = top, placed
        super().__init__(path, columns, dimension=0)

    @staticmethod
    def columns_of(top: int = 1, *, placed: bool = False) -> tuple[str, ...]:
        """The columns that are added to a table's own."""
        names = ["label", "confidence"]
        for rank in range(2, top + 1):
            names += [f"label_{rank}", f"confidence_{rank}"]
        return (*names, *(["file"] if placed else []), *ERRORS)

    def add(
        self,
        kept: Sequence[str | None],
        record: Record,
        confidence: float = 0.0,
        file: str | None = None,
    ) -> None:
        """Adds an image's verdict. A label below `confidence` is left out, its probability not."""
        cells: list[object] = []
        for label, prob in zip(record.labels or (), record.probs or (), strict=True):
            cells += [label if prob >= confidence else None, prob]
        cells = [*cells, *[None] * 2 * self._top][: 2 * self._top]
        placed = [file] if self._placed else []
        self._csv.writerow([*self._own(kept), *cells, *placed, *error_cells(record)])


class JsonLinesWriter(Writer):
    """JSON lines: the columns and the record in one object; an error as the wire spells it."""

    reserved = (*FEATURES, "error")

    @override
    def _open(self) -> None:
        self._file: IO[str] = self.part().open("w", encoding="utf-8")

    @override
    def _write(self, kept: Sequence[str | None], record: Record) -> None:
        line: dict[str, Any] = dict(zip(self.columns, kept, strict=True))
        for name, vector in zip(FEATURES, _vectors(record), strict=True):
            if vector is not None:
                line[name] = vector.tolist()
        if record.error:
            code, message, retryable = error_cells(record)
            line["error"] = {"code": code, "message": message, "retryable": retryable}
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    @override
    def _close(self) -> None:
        self._file.close()


class NumpyWriter(Writer):
    """`out.npy` stands for three files: `out.image_features.npy` and `out.text_features.npy`,
    float32 [rows, dimension] with NaN where a row has no vector, and `out.rows.csv` with the
    columns and the errors. A kind of vector that no row asked for has no file."""

    @override
    def _open(self) -> None:
        self._paths = {name: self.path.with_suffix(f".{name}.npy") for name in FEATURES}
        self._matrices = {name: self.part(path).open("wb") for name, path in self._paths.items()}
        self._used: set[str] = set()
        self._count = 0
        self._nothing = np.full(self.dimension, np.nan, dtype="<f4").tobytes()
        self._write_headers()
        self._table = self.part(self.table_of(self.path)).open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._table)
        self._csv.writerow([*self.columns, *ERRORS])

    def _write_headers(self) -> None:
        # NumPy leaves room in the header for the length to grow, so it can be written over.
        for file in self._matrices.values():
            file.seek(0)
            shape = (self._count, self.dimension)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)

    @override
    def _write(self, kept: Sequence[str | None], record: Record) -> None:
        for (name, file), vector in zip(self._matrices.items(), _vectors(record), strict=True):
            if vector is not None:
                self._used.add(name)
            file.write(self._nothing if vector is None else vector.astype("<f4").tobytes())
        self._csv.writerow([*kept, *error_cells(record)])
        self._count += 1

    @override
    def _close(self) -> None:
        self._write_headers()
        for name, file in self._matrices.items():
            file.close()
            if name not in self._used:
                self.part(self._paths[name]).unlink()
        self._table.close()

    @override
    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        return [*(path.with_suffix(f".{name}.npy") for name in FEATURES), cls.table_of(path)]

    @staticmethod
    def table_of(path: Path) -> Path:
        """The file of columns and errors beside the arrays."""
        return path.with_suffix(".rows.csv")


WRITERS: dict[str, type[Writer]] = {
    ".parquet": ParquetWriter,
    ".csv": CsvWriter,
    ".jsonl": JsonLinesWriter,
    ".npy": NumpyWriter,
}
"""The writer of each file name ending."""


def writer_for(path: Path) -> type[Writer]:
    """The writer for a file name. Raises RequestError for an ending that none knows."""
    try:
        return WRITERS[path.suffix]
    except KeyError:
        raise RequestError(f"{path.name} must end in {', '.join(WRITERS)}") from None


def _vectors(record: Record) -> tuple[Vector | None, Vector | None]:
    return record.image_features, record.text_features


def error_cells(record: Record) -> tuple[str | None, str | None, bool | None]:
    """What stands in the columns `ERRORS` for a record."""
    error = record.error
    return (error.code, str(error), error.retryable) if error else (None, None, None)
