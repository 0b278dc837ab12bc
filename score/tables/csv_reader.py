"""CSV files as a job's rows, read lazily. Knows nothing of models."""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, islice, repeat
from pathlib import PurePath
from typing import ClassVar

from score.contract.rows import IMAGE, TEXT, Row
from score.errors import BadColumns, BadType, RequestError
from score.storage.byte_source import ByteSource, packing_of
from score.storage.inputs import MAX_LINE, bytes_of, lines_of, longer_than, text_stream
from score.storage.remote import File, Input
from score.tables.lines import (
    ALL_TEXT,
    MAX_KEPT_IMAGE,
    NO_NAMES,
    EmptyTable,
    Line,
    Mark,
    distinct,
    folder_of,
    is_unicode,
    kept_cells,
    places_of,
)

MAX_DELIMITERS = 2**20
"""Of a row, in its texts, too: before they become cells of 60 bytes each."""

_DELIMITERS = {",": "commas", "\t": "tabs"}
_NO_CSV = frozenset(
    {".parquet", ".pqt", ".jsonl", ".ndjson", ".json", ".npy", ".tsv", ".tar", ".tgz"}
)
_CELL = r'(?:"(?:[^"]++|"")*+"[ \t]*|[^"{0}\r\n][^{0}\r\n]*+|)'
_WELL_FORMED = {
    mark: re.compile(f"{_CELL}(?:{{0}}{_CELL})*[\\r\\n]*".format(mark)) for mark in _DELIMITERS
}
"""Rows whose quoted cells end with their quote, or blanks after it."""
_END = "\0the end\0"  # a line appended after the last one
NOT_UTF8 = "is not UTF-8 text; save the CSV as UTF-8"


class _Reading:
    """One reading of CSV text: the cells of its rows, and how far it has come.

    ended: whether the row that was read last is the last one, and a quote in it is left open.
    bytes, lines: read up to the end of that row. start: the row's first line.
    """

    def __init__(
        self, lines: Iterable[str], name: str, delimiter: str, place: tuple[int, int]
    ) -> None:
        """`place`: the bytes and lines before the first line."""
        csv.field_size_limit(MAX_LINE + len(_END))
        self._name, self._delimiter = name, delimiter
        self.bytes, self._before = place
        self.ended, self.start = False, self._before + 1
        self._length = self._delimiters = 0  # of the row so far
        self._raw: list[str] = []  # its lines
        self._reader = csv.reader(self._counted(lines), delimiter=delimiter)

    @property
    def lines(self) -> int:
        return self._before + self._reader.line_num

    def rows(self) -> Iterator[list[str]]:
        """Cells of each row up to the end, blank lines left out."""
        reader, before = self._reader, self._before
        try:
            while True:
                self.start = before + reader.line_num + 1
                self._length = self._delimiters = 0
                self._raw = []
                cells = next(reader, None)
                if cells is None or (cells == [_END] and self.ended and self.start == self.lines):
                    return
                if cells:
                    yield cells
        except csv.Error as error:
            raise RequestError(
                f"{self._name}, line {self.lines}: {error}; is a quote left open?"
            ) from error
        except OSError as error:
            raise RequestError(f"{self._name} cannot be read: {error}") from error

    def fault(self) -> str:
        """What is wrong with the quotes of the row that was read last; empty where nothing is."""
        if self.ended:
            return self.left_open()
        if len(self._raw) == 1 or self._is_well_formed():
            return ""
        return swallowing(self.start, self.lines)

    def _is_well_formed(self) -> bool:
        """Whether each quoted cell ends with its quote. A cell that begins with a quote by chance
        would else end at some quote of a later line, and hold all rows between."""
        return _WELL_FORMED[self._delimiter].fullmatch("".join(self._raw)) is not None

    def left_open(self) -> str:
        """What is wrong with the last row where `ended`."""
        return (
            f"a quote is left open in the row of lines {self.start} to {self.lines - 1}, the "
            "file's last"
        )

    def _counted(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines and `_END`, which an open quote would include in a cell."""
        delimiter = self._delimiter
        for line in lines:
            length = len(line)
            self.bytes += length if line.isascii() else bytes_of(line)
            self._length += length
            self._raw.append(line)
            self._delimiters += line.count(delimiter)
            if self._length > MAX_LINE or self._delimiters > MAX_DELIMITERS:
                raise RequestError(self._too_long())
            yield line
        self.ended = True
        yield _END

    def _too_long(self) -> str:
        if self._length > MAX_LINE:
            where = f"{self._name}: the row that begins at line {self.start}"
            return f"{where} {longer_than(MAX_LINE)}; is a quote left open?"
        return f"{self._name}: {many_delimiters(self.start, self._delimiter)}"


class CsvRows:
    """CSV text with an `image` column, a `text` column or both, read lazily.

    Every cell is text: none is converted to a number or a missing value. Blank lines are skipped,
    those before the header too. A line with more or fewer cells than the header fails its row.
    A row of more than `MAX_LINE` characters, such as one whose quote is left open, is refused
    before more of it is read. `name`: of the text, in messages. Raises BadColumns for a header
    without a usable column or with too many columns, RequestError for what is no CSV.
    """

    delimiter: ClassVar[str] = ","

    def __init__(
        self,
        lines: Iterable[str],
        name: str,
        chosen: Mapping[str, str] = NO_NAMES,
        place: tuple[int, int] = (0, 0),
    ) -> None:
        """`chosen`: as for `places_of`. `place`: the bytes and lines before the first line."""
        self.name = name
        self._reading = _Reading(lines, name, self.delimiter, place)
        header = self._header()
        if not all(map(is_unicode, header)):
            raise BadColumns(f"{name} is not UTF-8 text")
        if any("\0" in cell for cell in header):
            raise BadColumns(f"{name} has zero bytes in its header: is it UTF-16? Save it as UTF-8")
        where = f"{name}, line {self._reading.start},"
        self._places = places_of(header, where, chosen)
        self.header = header  # unchanged, unlike `columns`
        self.columns, self.types = distinct(header), ALL_TEXT

    def _header(self) -> list[str]:
        for cells in self._reading.rows():
            if self._reading.ended:
                raise RequestError(
                    f"{self.name}: a quote is left open in the header, line {self._reading.start}"
                )
            if fault := self._reading.fault():
                raise RequestError(f"{self.name}: {fault}")
            if any(cell.strip() for cell in cells):
                return cells
        raise EmptyTable(f"{self.name} is empty: it needs a header line")

    def cells(self) -> Iterator[list[str]]:
        """Each row's cells, unchanged, without blank lines. An alternative to iterating over lines.

        Raises RequestError where a quote is left open, or ends in the middle of a cell of a later
        line.
        """
        for cells in self._reading.rows():
            if fault := self._reading.fault():
                raise RequestError(f"{self.name}: {fault}")
            yield cells

    def rows(self) -> Iterator[Row]:
        """Each row without its cells, blank lines left out: what a request needs."""
        return map(self._row, self._reading.rows())

    def _row(self, cells: list[str]) -> Row:
        width = len(self.columns)
        error: BadType | None = None
        if self._reading.ended:
            cells[-1] = cells[-1].removesuffix(_END)
        if fault := self._reading.fault():
            error = BadType(fault)
        elif len(cells) != width:
            error = BadType(f"line {self._reading.lines} has {len(cells)} cells, not {width}")
        if error:
            return Row(**{TEXT if TEXT in self._places else IMAGE: error})
        return Row(**{name: _readable(cells[number]) for name, number in self._places.items()})

    def _kept(self, cells: list[str], image: int | None) -> list[object]:
        width = len(self.columns)
        if self._reading.ended or len(cells) != width:
            cut = (cell[:MAX_KEPT_IMAGE] for cell in cells)
            return kept_cells(list(islice(chain(cut, repeat(None)), width)), image)
        return kept_cells([*cells], image)


class CsvTable(CsvRows):
    """A CSV file (`.gz` and `.zst`, too), read as `CsvRows` reads its text.

    Use it as a context manager. Its marks are numbers of bytes, unpacked, and of lines: of a file
    that is not packed, nothing before a mark is read again.
    """

    def __init__(self, path: File, chosen: Mapping[str, str] = NO_NAMES) -> None:
        """`chosen`: as for `places_of`."""
        self._check_name(path.name)
        self.path, self.root = path, folder_of(path)
        self.files: list[Input] = [path]
        with ExitStack() as files:
            self._source = files.enter_context(ByteSource(path))
            self.size = self._source.size
            begin = (self._byte_order_mark(), 0)
            super().__init__(self._lines(begin), path.name, chosen, begin)
            self._begin = self._reading.bytes, self._reading.lines
            self._files = files.pop_all()

    def __enter__(self) -> CsvTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __iter__(self) -> Iterator[Line]:
        return self.after(None)

    def after(self, mark: Mark | None) -> Iterator[Line]:
        """As `Lines.after`."""
        place, lines = mark or self._begin
        self._reading = _Reading(
            self._lines((place, lines)), self.name, self.delimiter, (place, lines)
        )
        return self._after(self._reading)

    def _after(self, reading: _Reading) -> Iterator[Line]:
        image, source = self._places.get(IMAGE), self._source
        is_packed = source.is_packed
        for cells in reading.rows():
            row, kept = self._row(cells), self._kept(cells, image)
            place = reading.bytes
            position = source.position(place) if is_packed else place
            yield Line(row, kept, position, (place, reading.lines))

    @classmethod
    def _check_name(cls, name: str) -> None:
        """Raises RequestError for a name of another format."""
        unpacked = name.lower().removesuffix(packing_of(name))
        if PurePath(unpacked).suffix in _NO_CSV:
            raise RequestError(
                f"{name} is no CSV (.csv, .csv.gz, .csv.zst), which is what is read here; `score "
                "embed` reads TSV, JSONL, parquet and tar, too"
            )

    def _lines(self, place: tuple[int, int]) -> Iterator[str]:
        """The lines from a place on, which is given as bytes and lines."""
        stream = text_stream(self._source.read_from(place[0]), inside=True)
        return lines_of(stream, self.path.name, place[1] + 1)

    def _byte_order_mark(self) -> int:
        """The bytes of the byte order mark at the beginning, if there is one."""
        try:
            head = self._source.read_from(0).read(len(BOM_UTF8))
        except OSError as error:
            raise RequestError(f"{self.path.name} cannot be read: {error}") from error
        return len(head) if head == BOM_UTF8 else 0


def swallowing(first: int, last: int) -> str:
    """What is wrong with a row of several lines in which a quoted cell goes on after its quote."""
    return (
        f"lines {first} to {last} are one row, since a cell begins with a quote; but the next "
        "quote is in the middle of a cell. A quote at the beginning of a cell is written three "
        'times ("""so""" for "so")'
    )


def many_delimiters(line: int, delimiter: str = ",") -> str:
    """What is wrong with a row of more than `MAX_DELIMITERS`. line: its first."""
    return (
        f"the row that begins at line {line} holds more than {MAX_DELIMITERS:,} "
        f"{_DELIMITERS[delimiter]}; is a quote left open?"
    )


def _readable(cell: str) -> object:
    return cell if is_unicode(cell) else BadType(NOT_UTF8)
