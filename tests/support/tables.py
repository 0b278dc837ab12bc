"""Unusual and invalid tables, as CSV and as parquet, and the expected result of each.

One list per format; the tests send all of it to every surface that accepts the format.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from score.errors import RowError
from score.jobs.line_source import open_lines
from score.tables.csv_reader import CsvTable
from score.tables.lines import NO_NAMES, Line, Lines
from score.tables.parquet_reader import ParquetTable

TEXT = {"text_features"}
PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class Case:
    """A table and the expected result.

    expect: for each row the names of its vectors or its error code; for a table that is refused as
    a whole, one error code.
    """

    id: str
    data: bytes
    expect: list[Any] | str
    says: str = ""  # part of the message


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """A parquet file; values are lists or arrow arrays."""
    return packed(pa.table(columns), **options)


def packed(table: pa.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def read_csv(file: Path) -> None:
    """Reads all rows of a file, and keeps none."""
    with CsvTable(file) as table:
        for _ in table:
            pass


def read_parquet(file: Path, characters: int) -> None:
    """Reads all rows of a file, whose texts have together so many characters."""
    with ParquetTable(file) as table:
        assert sum(len(str(line.row.text)) for line in table) == characters


def shown(line: Line) -> tuple[object, ...]:
    """All of a line, so that two can be compared: errors by their type and message."""
    cells = [
        (type(cell).__name__, str(cell)) if isinstance(cell, RowError) else cell
        for cell in (line.row.image, line.row.text)
    ]
    return (*cells, line.kept, line.position, line.mark)


def check_marks(table: Lines) -> list[Line]:
    """All lines of a table, which after each of them goes on as if it was not interrupted."""
    lines = list(table)
    wanted = [shown(line) for line in lines]
    assert [shown(line) for line in table.after(None)] == wanted
    for number in reversed(range(len(lines))):
        mark = tuple(json.loads(json.dumps(lines[number].mark)))
        assert [shown(line) for line in table.after(mark)] == wanted[number + 1 :]
    if lines:  # a reading that is given up does not matter
        next(table.after(lines[0].mark), None)
        assert [shown(line) for line in table.after(lines[0].mark)] == wanted[1:]
        assert lines[-1].position <= table.size
    return lines


def lines_of(source: Any, columns: Mapping[str, str] = NO_NAMES) -> list[Line]:
    """All lines of an input, which can be interrupted after each of them."""
    with open_lines(source, columns) as table:
        return check_marks(table)


def cells_of(lines: Sequence[Line]) -> list[tuple[object, object]]:
    """The images and texts of lines, None for what is empty."""
    return [(line.row.image or None, line.row.text) for line in lines]


def errors_of(lines: Sequence[Line]) -> list[str | None]:
    """What is wrong with each of the lines."""
    cells = [(line.row.image, line.row.text) for line in lines]
    errors = [[str(cell) for cell in pair if isinstance(cell, RowError)] for pair in cells]
    return [found[0] if found else None for found in errors]


def read_lines(file: Path) -> None:
    """Reads all lines of an input, and keeps none."""
    with open_lines(file) as table:
        for _ in table:
            pass


def archive(*members: tuple[str | tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive. Members: names, or headers, whose size need not be true, and contents."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name) if isinstance(name, str) else name
            header.size = header.size or len(content)
            tar.addfile(header)
            stream.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    return stream.getvalue()


_MISSING = ("nan", "None", "NULL", "N/A", "NaN", "n/a", "null", "#N/A", " <NA>", "\\N")

CSVS = [
    Case("plain", b"text,id\na,1\nb,2\n", [TEXT, TEXT]),
    Case("a header alone", b"image,text\n", []),
    Case("no line end at the end", b"text\na", [TEXT]),
    Case("CR LF", b"text,id\r\na,1\r\nb,2\r\n", [TEXT, TEXT]),
    Case("CR alone", b"text,id\ra,1\rb,2\r", [TEXT, TEXT]),
    Case("a byte order mark", b"\xef\xbb\xbftext\na\n", [TEXT]),
    Case("a quoted comma and a quoted line end", b'text,id\n"a, b",1\n"c\nd",2\n', [TEXT, TEXT]),
    Case("blank lines first", b"\n\r\n\ntext,id\na red apple,1\n", [TEXT]),
    Case("blank lines between", b"text,id\n\na,1\n\n\nb,2\n\n", [TEXT, TEXT]),
    Case("an empty column", b"image,text\n,a\n,b\n", [TEXT, TEXT]),
    Case("a text of digits", b"text,id\n007,1\n", [TEXT]),
    Case("missing cells", b'image,text\n,a\n" ",a\n<NA>,a\n', [TEXT, TEXT, TEXT]),
    Case("rows without a cell", b'image,text\n,\n" ",<NA>\n', ["empty_row", "empty_row"]),
    # A line like the marker of the end in the reader.
    Case("a zero byte", b"text\na\n\0the end\0\nb\n", [TEXT, TEXT, TEXT]),
    Case(
        "a comma at the end of each line",
        b"text,id\na red apple,1,\na boat,2,\n",
        ["bad_type", "bad_type"],
        "line 2 has 3 cells, not 2",
    ),
    Case(
        "one comma unquoted",
        b"id,text\n1,a\n2,a cat, asleep\n3,b\n",
        [TEXT, "bad_type", TEXT],
        "line 3 has 3 cells, not 2",
    ),
    Case("a cell too few", b"id,text\n1,a\n2\n", [TEXT, "bad_type"], "line 3 has 1 cells, not 2"),
    Case("bytes that are not UTF-8", b"text\na\n\xff\xfe\n", [TEXT, "bad_type"], "not UTF-8"),
    Case("an open quote", b'text\na\n"b\nc\n', [TEXT, "bad_type"], "a quote is left open"),
    Case(
        "missing images, spelled out",
        "image,text\n{}\n".format("\n".join(f"{cell},a" for cell in _MISSING)).encode(),
        ["bad_base64"] * len(_MISSING),
        "looks like a missing value",
    ),
    Case("text twice", b"text,text\na,b\n", "bad_columns", "'text' appears 2 times"),
    Case("image twice", b"image,text,image\n,a,\n", "bad_columns", "'image' appears 2 times"),
    Case("miscased beside a right one", b"Image,text\nx,a\n", "bad_columns", "'Image'"),
    Case("miscased alone", b"Text,id\na,1\n", "bad_columns", "'Text'"),
    Case("blanks around a name", b"text , image \na,\n", "bad_columns", "' image '"),
    Case("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbfimage,text\nx,a\n", "bad_columns"),
    Case("other columns", b"url,caption\nx,a\n", "bad_columns", "'url', 'caption'"),
    Case("nothing", b"", "bad_columns", "empty"),
    Case("blank lines alone", b"\n\n\r\n", "bad_columns", "empty"),
    Case("a header that is not UTF-8", b"text,\xff\na,b\n", "bad_columns", "not UTF-8"),
    Case("UTF-16", "text\na\n".encode("utf-16"), "bad_columns"),
    Case("an open quote in the header", b'"text\na\n', "bad_request", "a quote is left open"),
]

PARQUETS = [
    Case("plain", parquet({"text": ["a", "b"], "id": [1, 2]}), [TEXT, TEXT]),
    Case("no rows", parquet({"text": pa.array([], pa.string())}), []),
    Case("a dictionary", parquet({"text": pa.array(["a", "a"]).dictionary_encode()}), [TEXT] * 2),
    Case("large strings", parquet({"text": pa.array(["a"], pa.large_string())}), [TEXT]),
    Case(
        "missing cells",
        parquet({"image": [None, "", " ", "<NA>"], "text": ["a"] * 4}),
        [TEXT] * 4,
    ),
    Case("a column of nulls", parquet({"image": [None, None], "text": ["a", "b"]}), [TEXT] * 2),
    Case("a column of NaN", parquet({"image": [float("nan")], "text": ["a"]}), [TEXT]),
    Case("rows without a cell", parquet({"text": [None, ""]}), ["empty_row", "empty_row"]),
    Case("numbers", parquet({"text": [7, None]}), ["bad_type", "empty_row"], "not int"),
    Case("booleans", parquet({"text": [True]}), ["bad_type"], "not bool"),
    Case("bytes as a text", parquet({"text": [b"a"]}), ["bad_type"], "not bytes"),
    Case("several row groups", parquet({"text": ["a", "b", "c"]}, row_group_size=1), [TEXT] * 3),
    Case("nested columns beside", parquet({"text": ["a"], "tags": [["x", "y"]]}), [TEXT]),
    Case(
        "missing images, spelled out",
        parquet({"image": [*_MISSING], "text": ["a"] * len(_MISSING)}),
        ["bad_base64"] * len(_MISSING),
        "looks like a missing value",
    ),
    Case(
        "text twice",
        packed(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])),
        "bad_columns",
        "'text' appears 2 times",
    ),
    Case("miscased beside a right one", parquet({"Image": ["x"], "text": ["a"]}), "bad_columns"),
    Case("miscased alone", parquet({"Text": ["a"], "id": [1]}), "bad_columns", "'Text'"),
    Case("other columns", parquet({"url": ["x"]}), "bad_columns", "'url'"),
    Case("lists", parquet({"text": [["a"]]}), "bad_columns", "must hold strings, not list"),
    Case(
        "as datasets keeps images",
        parquet({"image": [{"bytes": b"x", "path": "y"}]}),
        "bad_columns",
        "must hold strings, not struct",
    ),
    Case("nothing", b"", "bad_request"),
    Case("no parquet", b"text,id\na,1\n", "bad_request"),
    Case("cut short", parquet({"text": ["a"]})[:-9], "bad_request"),
    Case("a false footer", b"PAR1" + b"\xff" * 64 + b"PAR1", "bad_request"),
]
