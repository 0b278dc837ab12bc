"""A table goes on after any of its lines as if it had not been interrupted."""

from __future__ import annotations

import base64
import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from score.errors import RequestError
from score.jobs.line_source import open_lines
from score.storage import byte_source
from score.tables.csv_reader import CsvTable
from score.tables.lines import Lines
from score.tables.parquet_reader import ParquetTable
from tests.support.tables import CSVS, Case, check_marks, packed, parquet, shown

PACKED = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}
NASTY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

_CELLS = [b"", b"a", b"a b", "é€😀".encode(), b"\xff", b"\xc3", b'"x\ny"', b'"x\r\n\r"', b'"a,""b"']
_CELLS += [b'"', b"\xef\xbb\xbf", b"\0", b"\0the end\0", "\u2028\x85".encode(), b"1,2", b" \x0c"]
_ENDS = [b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n\n", b"\n\r"]


@st.composite
def csv_bytes(draw: st.DrawFn) -> bytes:
    """A header, and lines of cells and line ends as no tool writes them."""
    begin = draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\n\r\n"]))
    end = draw(st.sampled_from(_ENDS))
    line = st.lists(st.sampled_from(_CELLS), min_size=1, max_size=3).map(b",".join)
    lines = draw(st.lists(st.tuples(line, st.sampled_from(_ENDS)), max_size=12))
    last = draw(st.sampled_from([b"", b"a,b", b'"open\nx', "é".encode()]))
    return begin + b"text,id" + end + b"".join(a + b for a, b in lines) + last


@pytest.mark.parametrize("ending", PACKED)
@given(content=csv_bytes(), block=st.integers(1, 9))
@NASTY
def test_a_csv_goes_on_after_each_line(
    content: bytes, block: int, ending: str, tmp_path: Path
) -> None:
    file = tmp_path / f"in.csv{ending}"
    file.write_bytes(PACKED[ending](content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_source, "BLOCK", block)
        with CsvTable(file) as table:
            assert table.files == [file]
            lines = check_marks(table)
            if not ending and lines:
                places = [line.mark[0] for line in lines]
                assert content[places[-1] :].strip(b"\r\n") == b""
                assert places == sorted({*places})


@pytest.mark.parametrize("case", CSVS, ids=lambda case: case.id)
def test_every_unusual_csv_goes_on_after_each_line(case: Case, tmp_path: Path) -> None:
    if not isinstance(case.expect, str):
        (tmp_path / "in.csv").write_bytes(case.data)
        with CsvTable(tmp_path / "in.csv") as table:
            assert len(check_marks(table)) == len(case.expect)


@given(
    texts=st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=3), max_size=150),
    rows=st.integers(1, 70),
)
@NASTY
def test_a_parquet_file_goes_on_after_each_row(
    texts: list[str | None], rows: int, tmp_path: Path
) -> None:
    columns = {"text": pa.array(texts, pa.string()), "n": list(range(len(texts)))}
    (tmp_path / "in.parquet").write_bytes(parquet(columns, row_group_size=rows))
    with ParquetTable(tmp_path / "in.parquet") as table:
        lines = check_marks(table)
    assert [line.row.text for line in lines] == texts


@given(
    names=st.lists(st.sampled_from(["a", "b/c", "b/.d", "é", "z/\udcff", "b/c.txt"]), unique=True)
)
@NASTY
def test_a_folder_goes_on_after_each_image(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("images")
    for name in ["first", *names]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / f"{name}.png").write_bytes(b"x")
    (root / "link.jpg").symlink_to("nowhere")
    with open_lines(root) as table:
        assert table.files == [root]
        assert len(check_marks(table)) >= 2


# -- the work that is spared -------------------------------------------------------------------


def test_a_csv_is_not_read_again_before_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_bytes(b"text,id\n" + b"".join(b"%d,b\n" % number for number in range(100_000)))
    with CsvTable(file) as table:
        lines = list(table)
        with file.open("r+b") as stream:
            stream.write(b"\0" * lines[99_000].mark[0])
        rest = list(table.after(lines[99_000].mark))
    assert [shown(line) for line in rest] == [shown(line) for line in lines[99_001:]]


def test_row_groups_before_a_mark_are_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    table = pa.table({"text": [f"text {number}" for number in range(100)]})
    file.write_bytes(packed(table, row_group_size=40, use_dictionary=False, compression="none"))
    second = pq.read_metadata(file).row_group(1).column(0).data_page_offset
    with ParquetTable(file) as lines:
        wanted = [shown(line) for line in lines]
        with file.open("r+b") as stream:
            stream.seek(4)
            stream.write(b"\xff" * (second - 4))
        assert [shown(line) for line in lines.after((45,))] == wanted[45:]
        assert [shown(line) for line in lines.after((40,))] == wanted[40:]
        with pytest.raises(RequestError, match=r"in\.parquet"):
            list(lines.after((39,)))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_the_progress_of_a_packed_file_does_not_depend_on_where_it_goes_on(
    ending: str, tmp_path: Path
) -> None:
    file = tmp_path / f"in.csv{ending}"
    rows = (base64.b64encode(os.urandom(3_000)) for _ in range(300))
    file.write_bytes(PACKED[ending](b"text\r\n" + b"\r\n".join(rows)))
    with CsvTable(file) as table:
        lines = list(table)
        assert len({line.position for line in lines}) > 3
        assert 0 < lines[0].position < lines[-1].position <= table.size
        for number in (0, 17, 150, 298):
            rest = [shown(line) for line in table.after(lines[number].mark)]
            assert rest == [shown(line) for line in lines[number + 1 :]]


# -- marks of other tables, damaged files ------------------------------------------------------


def _other(table: Lines, mark: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"it is not .*read before"):
        list(table.after(mark))


@pytest.mark.parametrize("ending", PACKED)
def test_a_mark_behind_the_end_of_a_csv_is_refused(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"in.csv{ending}"
    file.write_bytes(PACKED[ending](b"text\na\n"))
    with CsvTable(file) as table:
        _other(table, (8, 3))
        assert list(table.after((7, 2))) == []


def test_a_mark_behind_the_end_of_other_inputs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(parquet({"text": ["a"]}))
    with ParquetTable(tmp_path / "in.parquet") as table:
        _other(table, (2,))
        assert list(table.after((1,))) == []
    (tmp_path / "a.png").touch()
    with open_lines(tmp_path) as folder:
        _other(folder, (2,))
        assert list(folder.after((1,))) == []


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_damaged_packed_file_is_refused(ending: str, cut: int, tmp_path: Path) -> None:
    content = PACKED[ending](b"text\n" + base64.b64encode(os.urandom(300)))
    file = tmp_path / f"in.csv{ending}"
    for damaged in (content[:-cut], content[:-cut] + b"\xaa" * cut, b"text\na\n"):
        file.write_bytes(damaged)
        with (
            pytest.raises(RequestError, match=rf"^in\.csv\{ending} cannot be read: "),
            CsvTable(file) as table,
        ):
            list(table)
