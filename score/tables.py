"""Files: CSV in; parquet, CSV, JSON lines or NumPy arrays out. Streams both ways.

An output file appears under its name only when it is complete. Knows nothing of models.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from score.errors import BadColumns, BadType, RequestError
from score.rows import IMAGE, TEXT, Record, Row, Vector, check_columns

FEATURES = ("image_features", "text_features")
ERRORS = ("error_code", "error_message", "error_retryable")

_MAX_CELL = 256 * 2**20  # characters; an open quote would otherwise swallow the file
_MAX_KEPT_IMAGE = 2048  # characters: URLs and paths stay in the output, inline pictures do not
_NO_CSV = (".parquet", ".pqt", ".jsonl", ".json", ".npy")
_END = "\0the end\0"  # a line after the last, known by its place
_ROW_GROUP = 4096  # rows, or fewer where their cells are long
_ROW_GROUP_CHARACTERS = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table: the row to answer, the cells to keep beside the answer, and how many
    bytes of the file were read with it."""

    row: Row
    kept: list[str | None]
    position: int


class Lines(Protocol):
    """A job's rows, read as they are asked for. Use it as a context manager.

    columns: of the cells that the lines keep; root: the folder below which image cells may name
    files; size: the last line's position.
    """

    columns: list[str]
    root: Path
    size: int

    def __enter__(self) -> Lines: ...
    def __exit__(self, *_: object) -> None: ...
    def __iter__(self) -> Iterator[Line]: ...


class CsvRows:
    """CSV text with an `image` column, a `text` column or both, read as it is asked for.

    Every cell is text: nothing is guessed to be a number or a missing value. Blank lines are left
    out, those before the header too. A line with more or fewer cells than the header fails its row.
    `name` stands for the text in messages. Raises BadColumns for a header without a usable column,
    RequestError for what is no CSV.
    """

    def __init__(self, lines: Iterable[str], name: str) -> None:
        csv.field_size_limit(_MAX_CELL)
        self.name = name
        self._characters, self._ended = 0, False
        self._reader = csv.reader(self._lines(lines))
        header = self._header()
        if not all(map(_is_unicode, header)):
            raise BadColumns(f"{name} is not UTF-8 text")
        check_columns(header)
        self.header = header  # as it stands there
        self.columns = distinct(header)

    def _lines(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines and one more, by which a quote that was left open shows."""
        for line in lines:
            self._characters += len(line)
            yield line
        self._ended = True
        yield _END

    def _header(self) -> list[str]:
        for cells in self._rows():
            if self._ended:
                raise RequestError(f"{self.name}: a quote is left open in the header")
            if any(cell.strip() for cell in cells):
                return cells
        raise BadColumns(f"{self.name} is empty: it needs a header line")

    def _position(self) -> int:
        return self._characters

    def cells(self) -> Iterator[list[str]]:
        """Each row's cells as they stand there, blank lines left out, in place of iterating.

        Raises RequestError where a quote is left open.
        """
        for cells in self._rows():
            if self._ended:
                line = self._reader.line_num - 1
                raise RequestError(f"{self.name}: a quote is left open; it ends at line {line}")
            yield cells

    def __iter__(self) -> Iterator[Line]:
        places = {name: self.columns.index(name) for name in (IMAGE, TEXT) if name in self.columns}
        for cells in self._rows():
            yield self._line(cells, places)

    def _rows(self) -> Iterator[list[str]]:
        """Cells of each row up to the end, blank lines left out."""
        for cells in self._cells():
            if self._ended and cells == [_END]:
                return
            if cells:
                yield cells

    def _line(self, cells: list[str], places: Mapping[str, int]) -> Line:
        width, number = len(self.columns), self._reader.line_num
        error: BadType | None = None
        if self._ended:
            cells[-1] = cells[-1].removesuffix(_END)
            error = BadType(f"a quote is left open; the row would end at line {number - 1}")
        elif len(cells) != width:
            error = BadType(f"line {number} has {len(cells)} cells, not {width}")
        if error:
            kept = [*(cell[:_MAX_KEPT_IMAGE] for cell in cells), *[None] * width][:width]
            unread = {TEXT if TEXT in places else IMAGE: error}
            return Line(Row(**unread), kept_cells(kept, places.get(IMAGE)), self._position())
        row = Row(**{name: _readable(cells[place]) for name, place in places.items()})
        return Line(row, kept_cells([*cells], places.get(IMAGE)), self._position())

    def _cells(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error as error:
            raise RequestError(
                f"{self.name}, line {self._reader.line_num}: {error}; is a quote left open?"
            ) from error
        except (OSError, EOFError, zlib.error) as error:
            raise RequestError(f"{self.name} cannot be read: {error}") from error


class CsvTable(CsvRows):
    """A CSV file (`.gz` too), read as `CsvRows` reads its text. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        if path.suffix in _NO_CSV:
            raise RequestError(
                f"{path.name} is no CSV (.csv, .csv.gz), which is what is read here; `score embed` "
                "reads parquet, too"
            )
        self.path, self.root = path, path.parent
        self.size = path.stat().st_size
        with ExitStack() as files:
            self._raw = files.enter_context(path.open("rb"))
            self._packed = path.suffix == ".gz"
            unpacked = files.enter_context(gzip.open(self._raw)) if self._packed else self._raw
            # Bytes that are not UTF-8 survive as surrogates: they fail their row, not the file.
            text = io.TextIOWrapper(unpacked, "utf-8-sig", errors="surrogateescape", newline="")
            files.enter_context(text)
            super().__init__(text, path.name)
            self._files = files.pop_all()

    def __enter__(self) -> CsvTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @override
    def _position(self) -> int:
        return self._raw.tell() if self._packed else min(self._characters, self.size)


def kept_cells(cells: list[str | None], image: int | None) -> list[str | None]:
    """A line's cells as an output keeps them: without an inline picture in the place `image`."""
    if image is not None and (cell := cells[image]):
        inline = len(cell) > _MAX_KEPT_IMAGE or cell[:5].lower() == "data:"
        cells[image] = None if inline else cell
    return [None if cell is None else _utf8(cell) for cell in cells]


def distinct(header: list[str]) -> list[str]:
    """Column names as pandas gives them to nameless and repeated columns."""
    names: dict[str, None] = {}
    repeated = Counter[str]()  # how often each name has been met: a header may be megabytes long
    for place, name in enumerate(header):
        unique = name = _utf8(name) or f"Unnamed: {place}"
        while unique in names:
            repeated[name] += 1
            unique = f"{name}.{repeated[name]}"
        names[unique] = None
    return list(names)


def _readable(cell: str) -> object:
    return cell if _is_unicode(cell) else BadType("is not UTF-8 text; save the CSV as UTF-8")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def fingerprint(path: Path) -> str:
    """A name for what is computed of a file: its own, and its content's.

    Folders are mounted elsewhere on every machine, and two of them may have a file of one name.
    Raises OSError.
    """
    with path.open("rb") as stream:
        return f"{path.stem}-{hashlib.file_digest(stream, 'sha256').hexdigest()[:12]}"


# -- out ---------------------------------------------------------------------------------------


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
    if set(ERRORS) <= set(columns):
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
    """CSV: what each picture was called, in place of its vectors.

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
        """Adds a picture's verdict. A label below `confidence` is left out, its probability not."""
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
