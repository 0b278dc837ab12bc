"""CSV files as a job's rows, read as they are asked for. Knows nothing of models."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from score.contract.rows import IMAGE, TEXT, Row, check_columns
from score.errors import BadColumns, BadType, RequestError

_MAX_CELL = 256 * 2**20  # characters; an open quote would otherwise swallow the file
_MAX_KEPT_IMAGE = 2048  # characters: URLs and paths stay in the output, inline images do not
_NO_CSV = (".parquet", ".pqt", ".jsonl", ".json", ".npy")
_END = "\0the end\0"  # a line after the last, known by its place


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
    """A line's cells as an output keeps them: without an inline image in the place `image`."""
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
