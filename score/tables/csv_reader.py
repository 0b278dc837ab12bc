"""CSV files as a job's rows, read lazily. Knows nothing of models."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from typing_extensions import override

from score.contract.rows import IMAGE, TEXT, Row, check_columns
from score.errors import BadColumns, BadType, RequestError
from score.tables.lines import MAX_KEPT_IMAGE, Line, distinct, kept_cells

_MAX_CELL = 256 * 2**20  # characters; an open quote would otherwise swallow the file
_NO_CSV = (".parquet", ".pqt", ".jsonl", ".json", ".npy")
_END = "\0the end\0"  # a line appended after the last one


class CsvRows:
    """CSV text with an `image` column, a `text` column or both, read lazily.

    Every cell is text: none is converted to a number or a missing value. Blank lines are skipped,
    those before the header too. A line with more or fewer cells than the header fails its row.
    `name`: of the text, in messages. Raises BadColumns for a header without a usable column,
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
        self.header = header  # unchanged, unlike `columns`
        self.columns = distinct(header)

    def _lines(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines and `_END`, which an open quote would include in a cell."""
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
        """Each row's cells, unchanged, without blank lines. An alternative to iterating over lines.

        Raises RequestError where a quote is left open.
        """
        for cells in self._rows():
            if self._ended:
                line = self._reader.line_num - 1
                raise RequestError(f"{self.name}: a quote is left open; it ends at line {line}")
            yield cells

    def __iter__(self) -> Iterator[Line]:
        columns = {name: self.columns.index(name) for name in (IMAGE, TEXT) if name in self.columns}
        for cells in self._rows():
            yield self._line(cells, columns)

    def _rows(self) -> Iterator[list[str]]:
        """Cells of each row up to the end, blank lines left out."""
        for cells in self._cells():
            if self._ended and cells == [_END]:
                return
            if cells:
                yield cells

    def _line(self, cells: list[str], columns: Mapping[str, int]) -> Line:
        width, line = len(self.columns), self._reader.line_num
        error: BadType | None = None
        if self._ended:
            cells[-1] = cells[-1].removesuffix(_END)
            error = BadType(f"a quote is left open; the row would end at line {line - 1}")
        elif len(cells) != width:
            error = BadType(f"line {line} has {len(cells)} cells, not {width}")
        if error:
            kept = [*(cell[:MAX_KEPT_IMAGE] for cell in cells), *[None] * width][:width]
            unread = {TEXT if TEXT in columns else IMAGE: error}
            return Line(Row(**unread), kept_cells(kept, columns.get(IMAGE)), self._position())
        row = Row(**{name: _readable(cells[number]) for name, number in columns.items()})
        return Line(row, kept_cells([*cells], columns.get(IMAGE)), self._position())

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
            # Bytes that are not UTF-8 become surrogates, which fail their row, not the file.
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


def _readable(cell: str) -> object:
    return cell if _is_unicode(cell) else BadType("is not UTF-8 text; save the CSV as UTF-8")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
