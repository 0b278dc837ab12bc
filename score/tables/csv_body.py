"""A CSV request body → rows, as `csv_reader` reads a file, in memory in proportion to the body.

Cells are found in its bytes, and only those of `image` and `text` are decoded, one by one. Python's
`csv` wants text, of which one emoji makes four bytes a character, collects each cell at four bytes
a character once more, and lets no other thread run until its row is read. Nothing here refers to
itself: an error, and the body with it, is gone as soon as it is answered.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator
from typing import NamedTuple

from score.contract.json_reader import LONGEST_KEY, LONGEST_WIDE, TOO_WIDE
from score.contract.limits import MAX_COLUMNS
from score.contract.rows import COLUMNS, IMAGE, TEXT, Row
from score.errors import BadColumns, BadType, RequestError, RequestTooLarge
from score.tables.csv_reader import MAX_DELIMITERS, NOT_UTF8, many_delimiters, swallowing
from score.tables.lines import check_header

_NAME = "the body"
_PIECE = 2**16  # bytes that are looked at in a turn; other threads run between two
_MOST_BLANK = 10_000  # rows before the header
_BLANK = re.compile(rb"[\r\n]{1,65536}+")
_QUOTED = re.compile(rb'(?:[^"]++|"")*')
_BLANKS = re.compile(rb"[ \t]*+")
_FIRST = range(MAX_COLUMNS + 1)


class _Cells(NamedTuple):
    """A row. found: the bytes of those that were wanted; width: of all; start, end: the row's first
    and last line; is_open: a quote is left open in it, so that it is the last; is_swallowing: it
    has several lines, and a quote that ends in the middle of a cell."""

    found: dict[int, bytes]
    width: int
    start: int
    end: int
    is_open: bool
    is_swallowing: bool


def body_rows(body: bytes) -> Iterator[Row]:
    """Each row of a request's CSV, blank lines left out.

    Every cell is text. A line with more or fewer cells than the header fails its row, and so do
    bytes that are not UTF-8, and more characters than are read of a text that is not ASCII. Raises
    BadColumns for a header without a usable column or with too many; RequestError for a row of too
    many commas; RequestTooLarge for a name of more than 4,000 characters.
    """
    scanner = _Scanner(body)
    names = _header(scanner)
    wanted = {names.index(name): name for name in COLUMNS if name in names}
    return _rows(scanner, wanted, len(names))


def _header(scanner: _Scanner) -> list[str]:
    for number, cells in enumerate(iter(lambda: scanner.row(_FIRST), None)):
        if number == _MOST_BLANK:
            break
        if cells.is_open:
            raise RequestError(f"{_NAME}: a quote is left open in the header, line {cells.start}")
        if cells.is_swallowing:
            raise RequestError(f"{_NAME}: {swallowing(cells.start, cells.end)}")
        if max(map(len, cells.found.values())) > 4 * LONGEST_KEY:
            raise _long_name()
        try:
            names = [cell.decode() for cell in cells.found.values()]
        except UnicodeDecodeError:
            raise BadColumns(f"{_NAME} is not UTF-8 text") from None
        if not any(name.strip() for name in names):
            continue
        if max(map(len, names)) > LONGEST_KEY:
            raise _long_name()
        if any("\0" in name for name in names):
            raise BadColumns(
                f"{_NAME} has zero bytes in its header: is it UTF-16? Save it as UTF-8"
            )
        where = f"{_NAME}, line {cells.start},"
        check_header(names if cells.width == len(names) else range(cells.width), where)
        return names
    raise BadColumns(f"{_NAME} is empty: it needs a header line")


def _long_name() -> RequestTooLarge:
    return RequestTooLarge(f"{_NAME}: a column's name has more than {LONGEST_KEY:,} characters")


def _rows(scanner: _Scanner, wanted: dict[int, str], width: int) -> Iterator[Row]:
    column = TEXT if TEXT in wanted.values() else IMAGE
    while cells := scanner.row(wanted, width):
        if cells.is_open:
            place = f"lines {cells.start} to {cells.end}, the file's last"
            yield Row(**{column: BadType(f"a quote is left open in the row of {place}")})
        elif cells.is_swallowing:
            yield Row(**{column: BadType(swallowing(cells.start, cells.end))})
        elif cells.width != width:
            problem = f"line {cells.end} has {cells.width} cells, not {width}"
            yield Row(**{column: BadType(problem)})
        else:
            yield Row(**{name: _text(cells.found[number]) for number, name in wanted.items()})


def _text(cell: bytes) -> object:
    if len(cell) > 4 * LONGEST_WIDE and not cell.isascii():
        return BadType(TOO_WIDE)
    try:
        text = cell.decode()
    except UnicodeDecodeError:
        return BadType(NOT_UTF8)
    if len(text) > LONGEST_WIDE and not text.isascii():
        return BadType(TOO_WIDE)
    return text


class _Scanner:
    """A place in a body, between two rows."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = len(BOM_UTF8) if body.startswith(BOM_UTF8) else 0
        self._lines = self._counted = 0  # lines up to a place that has been counted
        self._goes_on = False  # a cell of this row, after its closing quote
        self._next = dict.fromkeys((b"\r", b"\n", b'"', b","), -1)  # from `_at` on

    def row(self, wanted: Collection[int], width: int | None = None) -> _Cells | None:
        """The next row that is not blank, with its wanted cells; None after the last. `width`: of
        rows whose cells matter; those of others are left out."""
        while match := _BLANK.match(self._body, self._at):
            self._at = match.end()
        if self._at >= len(self._body):
            return None
        start, found, count, is_open = self.lines() + 1, dict[int, bytes](), 0, False
        begin, self._goes_on = self._at, False
        plain = self._plain(wanted, width)
        if plain is not None:
            found, count = plain
        while plain is None:
            cell, is_open = self._cell(count in wanted)
            if count in wanted:
                found[count] = cell
            count += 1
            if count > MAX_DELIMITERS:
                raise RequestError(f"{_NAME}: {many_delimiters(start)}")
            if is_open or not self._body.startswith(b",", self._at):
                break
            self._at += 1
        is_swallowing = self._goes_on and self._has_line_end(begin)
        self._pass_line_end()
        return _Cells(found, count, start, self.lines(), is_open, is_swallowing)

    def _has_line_end(self, begin: int) -> bool:
        return any(self._body.find(end, begin, self._at) >= 0 for end in (b"\n", b"\r"))

    def lines(self) -> int:
        """Lines up to this place."""
        body, begin, end = self._body, self._counted, self._at
        ends = (body.count(letters, begin, end) for letters in (b"\n", b"\r"))
        self._lines += sum(ends) - body.count(b"\r\n", begin, end)
        self._counted = end
        last = end == len(body) and end > 0 and not body.endswith((b"\r", b"\n"))
        return self._lines + last

    def _plain(
        self, wanted: Collection[int], width: int | None
    ) -> tuple[dict[int, bytes], int] | None:
        """The cells of a line without a quote, and their number; None for other lines, and for long
        ones whose cells matter."""
        body, begin = self._body, self._at
        end = self._line_end()
        if self._find(b'"') < end:
            return None
        if end - begin > _PIECE:
            commas = body.count(b",", begin, end)
            if width in (None, commas + 1) or commas > MAX_DELIMITERS:
                return None
            self._at = end
            return {}, commas + 1
        self._at = end
        cells = body[begin:end].split(b",")
        return {number: cells[number] for number in wanted if number < len(cells)}, len(cells)

    def _cell(self, is_wanted: bool) -> tuple[bytes, bool]:
        """The cell that begins here, if it is wanted, and whether a quote is left open in it."""
        quoted, begin = b"", self._at
        is_quoted = self._body.startswith(b'"', begin)
        if is_quoted:
            begin += 1
            self._at = begin
            end = self._quote_end()
            if end == len(self._body):
                self._at = end
                return b"", True
            if is_wanted:
                quoted = self._body[begin:end].replace(b'""', b'"')
            begin = self._at = end + 1
        self._at = min(self._find(b","), self._line_end())
        if is_quoted:
            self._goes_on |= not _BLANKS.fullmatch(self._body, begin, self._at)
        return quoted + self._body[begin : self._at] if is_wanted else b"", False

    def _quote_end(self) -> int:
        """The place of the quote that ends the cell, or the body's end."""
        body, at = self._body, self._at
        while True:
            stop = at + _PIECE
            if (quote := body.find(b'"', at, stop)) < 0:
                if stop >= len(body):
                    return len(body)
                at = stop
                continue
            match = _QUOTED.match(body, quote, quote + _PIECE)
            end = match.end() if match else quote
            if end == quote or (end < len(body) and end < quote + _PIECE - 1):
                return end
            at = end

    def _line_end(self) -> int:
        return min(self._find(b"\r"), self._find(b"\n"))

    def _find(self, letter: bytes) -> int:
        """The next place of a letter, or the body's end. Each byte is looked at once."""
        place = self._next[letter]
        if place < self._at:
            place = self._body.find(letter, self._at)
            self._next[letter] = place = len(self._body) if place < 0 else place
        return place

    def _pass_line_end(self) -> None:
        if self._body.startswith(b"\r\n", self._at):
            self._at += 2
        elif self._at < len(self._body):
            self._at += 1
