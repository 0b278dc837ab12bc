"""Lines of JSON: a bad one fails its row, whatever is wrong with it, and costs little."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from score.contract.json_shape import DEEPEST
from score.contract.limits import MAX_COLUMNS
from score.errors import BadColumns, BadType, RequestError
from score.storage import byte_source
from score.tables import jsonl_reader
from score.tables.jsonl_reader import JsonlTable
from tests.support.spending import spent
from tests.support.tables import cells_of, check_marks, errors_of, lines_of

FIRST = b'{"image": "a.png", "text": "a", "n": 1}\n'

BAD: list[tuple[bytes, str]] = [
    (b'{"text": "a"', "is no JSON: Expecting ',' delimiter at character 13"),
    (b"text", "is no JSON: Expecting value at character 1"),
    (b'["a"]', "is no JSON object"),
    (b'"a"', "is no JSON object"),
    (b"null", "is no JSON object"),
    (b'{"text": "\xff"}', "is not UTF-8 text"),
    ('{"text": "a"}'.encode("utf-16"), "is not UTF-8 text"),
    (b'{"text": "a", "text": "b"}', "has the field 'text' more than once"),
    (b'{"n": {"x": 1, "x": 2}}', "has the field 'x' more than once"),
    (b'{"text": "a", "more": 1}', "has a field 'more', which none of the first 1,000 lines has"),
    (b'{"text": "\\ud800"}', "holds half a character"),
    (b'{"\\ud800": 1}', "has a field whose name holds half a character"),
    (b'{"n": ' + b"9" * 5_000 + b"}", "has a number of too many digits"),
    (b'{"n": ' + b"[" * 101 + b"]" * 101 + b"}", f"is nested more than {DEEPEST} levels deep"),
    (b'{"n": ' + b'{"a":' * 99_999 + b"1" + b"}" * 99_999 + b"}", "is nested more than"),
    (b'{"n": [' + b"1," * 2**20 + b"1]}", "has more than 1,048,576 values"),
    (
        json.dumps({str(number): 0 for number in range(MAX_COLUMNS + 1)}).encode(),
        "has 4,097 fields; at most 4,096",
    ),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[message[:40] for _, message in BAD])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_bad_line_fails_its_row(
    line: bytes, message: str, end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "in.jsonl"
    more = [b"\n", FIRST] if end else []
    file.write_bytes(b"".join([FIRST, b"\n", line, end, *more]))
    monkeypatch.setattr(jsonl_reader, "_HEAD_LINES", 1)
    lines = lines_of(file)
    said = errors_of(lines)[1]
    wanted = message.replace("1,000 lines", "1 lines")
    assert said is not None
    assert wanted in said
    assert "half a character, which" in said or said.startswith("line 3 ")
    assert cells_of([lines[0], *lines[2:]]) == [("a.png", "a")] * (1 + len(more) // 2)


def test_a_line_of_any_length_fails_its_row_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl_reader, "MAX_LINE", 100)
    monkeypatch.setattr(jsonl_reader, "_PIECE", 7)
    for size in (100, 101, 102, 108, 109, 500):
        long = b'{"text": "' + b"b" * (size - 13) + b'"}\n'
        assert len(long) == size
        (tmp_path / "in.jsonl").write_bytes(FIRST + long + FIRST + long.strip())
        lines = lines_of(tmp_path / "in.jsonl")
        said = [error or "" for error in errors_of(lines)]
        assert [error[:30] for error in said] == [
            "",
            "line 2 is longer than 100 char" if size > 100 else "",
            "",
            "line 4 is longer than 100 char" if size > 101 else "",
        ]


def test_fields_are_cells(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    rows = [
        {"text": "a", "n": [1, {"x": None}]},
        {"image": 7, "text": ["b"], "ok": True},
        {"text": None, "n": 2.5, "ok": None},
        {"image": f"data:image/png;base64,{'A' * 9}", "text": ""},
    ]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(map(json.dumps, rows)).encode())
    with JsonlTable(file) as table:
        assert table.columns == ["text", "n", "image", "ok"]
        lines = check_marks(table)
    assert [(line.row.image, line.row.text) for line in lines] == [
        *[(None, "a"), (7, ["b"]), (None, None), (rows[3]["image"], "")],
    ]
    assert [line.kept for line in lines] == [
        ["a", '[1, {"x": null}]', None, None],
        ['["b"]', None, "7", True],
        [None, "2.5", None, None],
        ["", None, None, None],
    ]


def test_half_a_character_is_replaced_in_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a", "n": "x\\ud83dy\\ud83d\\ude00"}')
    (line,) = lines_of(tmp_path / "in.jsonl")
    assert line.kept[1] is not None
    assert [part for part in line.kept[1].split("\ufffd") if part] == ["x", "y😀"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", BadColumns, r"in\.jsonl is empty"),
        (b"\n \r\n", BadColumns, r"in\.jsonl is empty"),
        (b"\xef\xbb\xbf", BadColumns, r"in\.jsonl is empty"),
        (b'{"url": "x"}', BadColumns, "no column 'image' or 'text'"),
        (b'{"Text": "x"}', BadColumns, "'Text' must be spelled 'text'"),
        (b"text\na\n", RequestError, r"in\.jsonl: line 1 is no JSON: Expecting value"),
        (b"[\n{}]", RequestError, r"in\.jsonl: line 1 is no JSON"),
    ],
)
def test_a_file_without_usable_lines_is_refused(
    content: bytes, error: type[RequestError], message: str, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(error, match=message):
        JsonlTable(tmp_path / "in.jsonl")


_LINES = [b'{"text": "a"}', b'{"image": "\xc3\xa9", "text": null}', b"", b" ", b"{", b'{"x": 1}']
_LINES += [b'{"text": "\xff"}', b'{"text": "\\n"} ', b"\xef\xbb\xbf{}", b'{"text": "a\rb"}']


@given(
    lines=st.lists(st.tuples(st.sampled_from(_LINES), st.sampled_from([b"\n", b"\r\n", b"\n\n"]))),
    block=st.integers(1, 9),
    ending=st.sampled_from(["", ".gz"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_goes_on_after_each_line(
    lines: list[tuple[bytes, bytes]], block: int, ending: str, tmp_path: Path
) -> None:
    content = FIRST + b"".join(line + end for line, end in lines) + b'{"text": "last"}'
    file = tmp_path / f"in.jsonl{ending}"
    file.write_bytes(gzip.compress(content) if ending else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_source, "BLOCK", block)
        patch.setattr(jsonl_reader, "MAX_LINE", 40)
        with JsonlTable(file) as table:
            read = check_marks(table)
    assert len(read) == 2 + sum(bool(line.strip()) for line, _ in lines)
    assert read[-1].row.text == "last"


@pytest.mark.slow
@pytest.mark.process
def test_hostile_lines_take_little_memory(tmp_path: Path) -> None:
    """An endless line, and one of as many values as a line may hold."""
    with gzip.open(tmp_path / "in.jsonl.gz", "wb", 1) as stream:
        stream.write(FIRST + b'{"n": [' + b"{}," * (2**20 - 9) + b"0]}\n")
        stream.write(b'{"n": [' + b"[]," * 2**24 + b"0]}\n")
        for _ in range(128):
            stream.write(b"b" * 2**22)
    (cost,) = spent([("tests.support.tables:read_lines", tmp_path / "in.jsonl.gz")])
    assert not cost.said
    assert cost.mebibytes < 400


def test_an_error_of_a_line_is_a_bad_type(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"image": "x"}\n{\n')
    _, line = lines_of(tmp_path / "in.jsonl")
    assert isinstance(line.row.image, BadType)
    assert line.kept == [None]
