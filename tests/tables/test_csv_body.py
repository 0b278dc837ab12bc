"""CSV bodies: the rows that a file of the same bytes has, and what reading them may cost."""

from __future__ import annotations

import io
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score.contract.json_reader import LONGEST_KEY, LONGEST_WIDE
from score.contract.rows import Row
from score.errors import BadColumns, BadType, RequestError, RequestTooLarge
from score.storage.inputs import lines_of, text_stream
from score.tables import csv_body
from score.tables.csv_body import body_rows
from score.tables.csv_reader import CsvRows, CsvTable
from tests.support.measuring import untraced

MIB = 2**20
EMOJI = "😀".encode()

_heads = st.sampled_from(
    (
        *(b"text\n", b"image,text\n", b"text,a\r\n", b"", b"\n\ntext,image\r", b'"text"\n'),
        *(b"\xef\xbb\xbftext\n", b'te"xt\n', b'"te"xt,image\n', b" \n,\ntext\n", b"\xff\n"),
    )
)
_atoms = st.sampled_from(
    (
        *(b'"', b'"', b'""', b",", b",", b"\n", b"\r", b"\r\n", b"a", b" ", b"\xff", EMOJI),
        *(b"\0", b"x" * 20, b"\x0b", b"\x1c", b"\xef\xbb\xbf", b"\0the end\0", "é".encode()),
    )
)


def _outcome(read: Callable[[bytes], Iterable[Row]], body: bytes) -> object:
    try:
        cells = [(row.image, row.text) for row in read(body)]
    except RequestError as error:
        return error.code, str(error)
    return [tuple(c if isinstance(c, str) else (type(c), str(c)) for c in row) for row in cells]


def _as_a_file(body: bytes) -> Iterable[Row]:
    return CsvRows(lines_of(text_stream(io.BytesIO(body)), "the body"), "the body").rows()


@settings(max_examples=500)
@given(
    head=_heads,
    lines=st.lists(_atoms, max_size=25).map(b"".join),
    piece=st.integers(3, 12) | st.just(2**16),
)
def test_the_rows_are_those_of_a_file(head: bytes, lines: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_body, "_PIECE", piece)
        assert _outcome(body_rows, head + lines) == _outcome(_as_a_file, head + lines)


def test_an_open_quote_is_reported_with_the_line_where_its_row_begins() -> None:
    (_, row) = body_rows(b'id,text\n1,"a\nb"\n\n2,"open\n3,c\n')
    assert "the row of lines 5 to 6" in str(row.text)


COSTLY: dict[str, tuple[bytes, type[Exception] | None, float, float]] = {
    "a name with an emoji": (EMOJI + b"a" * 32 * MIB + b"\nb\n", RequestTooLarge, 1.1, 0.5),
    "a name of bytes": (b"\xff" * 32 * MIB + b"\n", RequestTooLarge, 1.1, 0.5),
    "a long name": (b"text," + b"a" * 32 * MIB + b"\n", RequestTooLarge, 1.1, 0.5),
    "a cell with an emoji": (b"text\n" + EMOJI + b"a" * 32 * MIB, None, 1.1, 0.5),
    "a cell of bytes": (b"text\n" + b"\xff" * 32 * MIB, None, 1.1, 0.5),
    "other cells with an emoji": (b"text,x\na," + EMOJI + b"a" * 32 * MIB, None, 0.1, 0.5),
    "a cell": (b"text\n" + b"a" * 32 * MIB, None, 2.1, 0.5),
    "a quoted cell": (b'text\n"' + b"a\n" * 16 * MIB + b'"', None, 3.1, 1),
    "quotes in a cell": (b'text\n"' + b'""' * 16 * MIB + b'"', None, 3.1, 4),
    "an open quote": (b'text\n"' + b'""' * 16 * MIB, None, 0.1, 4),
    "cells with an emoji": (b"text\n" + (EMOJI + b"a" * 900_000 + b"\n") * 32, None, 4.5, 1),
    "empty lines": (b"text\n" + b"\n" * 32 * MIB, None, 0.1, 1),
    "empty lines at the beginning": (b"\r\n" * 16 * MIB + b"text\n", None, 0.1, 1),
    "blanks before the header": (b" \n" * 16 * MIB + b"text\n", BadColumns, 0.1, 1),
    "commas": (b"text" + b"," * 32 * MIB, RequestError, 1.3, 8),
    "commas of a row": (b"text\n" + b"," * 32 * MIB, RequestError, 1.3, 8),
    "rows of commas": (b"text\n" + (b"," * 1_000_000 + b"\n") * 32, None, 0.1, 1),
    "names": (b"text" + b",a" * 500_000, BadColumns, 1.3, 8),
}
"""Bodies, what they are refused with, the memory that reading may take in sizes of the body, and
the seconds of processor time."""
SLOWER = 5
"""A processor may be so many times as slow as the one where they were found. What is not in
proportion takes minutes."""


@pytest.mark.parametrize("name", COSTLY)
def test_what_a_body_costs_is_in_proportion_to_it(name: str) -> None:
    body, error, times, seconds = COSTLY[name]
    tracemalloc.start()
    try:
        outcome = _outcome(body_rows, body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, tuple if error else list)
    if error:
        assert outcome[0] == error.code
    assert most < times * len(body) + 4 * MIB  # what other threads and the tracer take
    began = time.process_time()
    untraced(_outcome)(body_rows, body)
    assert time.process_time() - began < SLOWER * seconds


SWALLOWED = """text,n
"begins with a quote,1
a row,2
say "so",3
"a cell of
two lines",4
"one line" and more,5
"""


def test_a_quote_that_swallows_rows_is_told(tmp_path: Path) -> None:
    """A cell that begins with a quote by chance ends at the next one, in a later line."""
    (tmp_path / "in.csv").write_text(SWALLOWED)
    with CsvTable(tmp_path / "in.csv") as table:
        of_a_file = [line.row.text for line in table]
    for first, *others in (of_a_file, [row.text for row in body_rows(SWALLOWED.encode())]):
        assert isinstance(first, BadType)
        assert "lines 2 to 4 are one row" in str(first)
        assert others == ["a cell of\ntwo lines", "one line and more"]
    with CsvTable(tmp_path / "in.csv") as table, pytest.raises(RequestError, match="lines 2 to 4"):
        list(table.cells())


def test_a_quote_that_swallows_the_header_is_told(tmp_path: Path) -> None:
    content = '"text,n\na "quote",1\nb,2\n'
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(RequestError, match="lines 1 to 2 are one row"):
        CsvTable(tmp_path / "in.csv")
    with pytest.raises(RequestError, match="lines 1 to 2 are one row"):
        list(body_rows(content.encode()))


def test_names_and_texts_as_long_as_is_read_are_read() -> None:
    longest = "é" * LONGEST_KEY
    (row,) = body_rows(f"text,{longest}\n{'é' * LONGEST_WIDE},a\n".encode())
    assert row.text == "é" * LONGEST_WIDE
    with pytest.raises(RequestTooLarge):
        list(body_rows(f"text,{longest}e\n".encode()))
    (row,) = body_rows(b"text\n" + b"a" * 8 * MIB)
    assert row.text == "a" * 8 * MIB


@pytest.mark.parametrize("column", ["text", "image"])
@pytest.mark.parametrize("letters", [LONGEST_WIDE + 1, 4 * LONGEST_WIDE])
def test_a_cell_that_is_too_wide_fails_its_row_alone(column: str, letters: int) -> None:
    before, row, after = body_rows(f"{column}\na\n{'é' * letters}\nb\n".encode())
    cell = getattr(row, column)
    assert isinstance(cell, BadType)
    assert "has more than 1,048,576 characters, which are not all ASCII" in str(cell)
    assert (getattr(before, column), getattr(after, column)) == ("a", "b")
