"""Several inputs as one: files, folders of tables, patterns; their columns, marks and images."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as dataset
import pytest

from score.__main__ import main
from score.contract.params import Params
from score.core.embedder import Embedder
from score.errors import BadColumns, RequestError, UnreadableFile
from score.jobs.embed import embed_lines
from score.jobs.line_source import READERS, open_lines
from score.jobs.table_chain import TableChain
from score.storage.byte_source import ByteSource
from score.tables.lines import Line
from tests.support.images import random_image
from tests.support.job_folders import content as read_content
from tests.support.tables import archive, cells_of, check_marks, errors_of, lines_of, parquet


def texts_of(lines: list[Line]) -> list[object]:
    return [line.row.text for line in lines]


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_inputs_of_every_format_follow_one_another(tmp_path: Path) -> None:
    """Columns in any order; the last file has no rows, and one is empty but for its header."""
    inputs = [
        write(tmp_path / "a.csv", "text,id\na1,1\na2,2\n"),
        write(tmp_path / "sub/b.tsv", "id\ttext\n3\tb1\n"),
        write(tmp_path / "c.jsonl.gz", gzip.compress(b'{"id": "4", "text": "c1"}\n')),
        write(tmp_path / "empty.csv", "text,id\n"),
        write(tmp_path / "d.parquet", parquet({"id": ["5", "6"], "text": ["d1", "d2"]})),
        write(tmp_path / "last.csv", "text,id\n"),
    ]
    with open_lines([str(inputs[0]), *inputs[1:]]) as table:
        assert table.files == inputs
        assert table.columns == ["text", "id"]
        assert table.size == sum(file.stat().st_size for file in inputs)
        lines = check_marks(table)
        positions = [line.position for line in lines]
        assert positions == sorted(positions)
        assert list(table.after((5,))) == []
    assert texts_of(lines) == ["a1", "a2", "b1", "c1", "d1", "d2"]
    assert [line.kept[1] for line in lines] == list("123456")
    assert [line.mark[0] for line in lines] == [0, 0, 1, 2, 4, 4]
    assert lines[3].mark == (2, 26, 1)


ONE_ROW = {
    ".csv": b"text\na\n",
    ".csv.gz": gzip.compress(b"text\na\n"),
    ".jsonl": b'{"text": "a"}',
    ".parquet": parquet({"text": ["a"]}),
    ".tar": archive(("a.txt", b"a")),
    ".tgz": gzip.compress(archive(("a.txt", b"a"))),
}


@pytest.mark.parametrize("ending", ONE_ROW)
def test_a_folder_or_a_pattern_stands_for_its_tables(ending: str, tmp_path: Path) -> None:
    names = ["data/b/1", "data/b/10", "data/a", "data/b/.hidden", "data/_b/1", "data/.b/1"]
    for name in names:
        write(tmp_path / f"{name}{ending}", ONE_ROW[ending])
    write(tmp_path / "data/README.md", "no table")
    write(tmp_path / "data/.part.csv", "no table")
    below = [f"a{ending}", f"b/1{ending}", f"b/10{ending}"]
    for source, files in (
        ("data", below),
        ("data/*" + ending, below[:1]),
        ("data/b/*", below[1:]),
        ("data/b*", below[1:]),
        ("data/[ab]/1*", below[1:]),
    ):
        with open_lines(tmp_path / source) as table:
            assert [str(file.relative_to(tmp_path / "data")) for file in table.files] == files
            assert texts_of(check_marks(table)) == ["a"] * len(files)


def test_columns_of_partitions_are_kept_if_the_files_do_not_have_them(tmp_path: Path) -> None:
    for folder in ("year=2023/who=a%2Fb", "year=2024/who=__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / "data" / folder / "x.csv", "text,year\na,99\n")
    for source in (tmp_path / "data", f"{tmp_path}/data/*/*/x.csv", f"{tmp_path}/data/year=*"):
        with open_lines(source) as table:
            assert table.columns == ["text", "year", "who"]
            assert [line.kept for line in check_marks(table)] == [
                ["a", "99", "a/b"],
                ["a", "99", None],
            ]
    (only,) = lines_of(tmp_path / "data/year=2023/who=a%2Fb/x.csv")
    assert only.kept == ["a", "99"]


def test_a_folder_with_images_is_a_folder_of_images(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\na\n")
    write(tmp_path / "x/b.png", b"x")
    assert cells_of(lines_of(tmp_path)) == [("./x/b.png", None)]


def test_folders_of_images_and_tables_follow_one_another(tmp_path: Path) -> None:
    """The paths in a table and below a folder are found, whichever folder each is relative to."""
    for name in ("one/a.png", "two/deep/b.png", "three/c.png"):
        write(tmp_path / name, b"x")
    write(tmp_path / "three/in.csv", "image\nc.png\n./c.png\ntwo/deep/b.png\nhttps://h/c.png\n")
    sources = [tmp_path / "one", tmp_path / "two", tmp_path / "three/in.csv"]
    with open_lines(sources) as table:
        assert table.root == tmp_path.resolve()
        lines = check_marks(table)
        table.root = tmp_path / "three"
        assert [line.row.image for line in table][2:4] == ["c.png", "./c.png"]
    images = [line.row.image for line in lines]
    assert images[:4] == ["./one/a.png", "./two/deep/b.png", "./three/c.png", "./three/c.png"]
    assert errors_of(lines)[4] == f"'two/deep/b.png' is no file below {tmp_path / 'three'}"
    assert images[5] == "https://h/c.png"
    assert [line.kept for line in lines][:3] == [["a.png"], ["deep/b.png"], ["c.png"]]


def test_images_of_several_folders_are_embedded(embedder: Embedder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "it.png", random_image(1))
        write(tmp_path / name / "in.csv", "image\nit.png\n")
    with open_lines(f"{tmp_path}/*/in.csv") as table:
        embed_lines(embedder, table, tmp_path / "out.jsonl", Params(on_error="raise"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len({str(line["image_features"]) for line in lines}) == 1 < len(lines)


# -- refusals ----------------------------------------------------------------------------------


def test_files_of_different_columns_are_refused_by_name(tmp_path: Path) -> None:
    one = write(tmp_path / "1.csv", "text,id\na,1\n")
    two = write(tmp_path / "2.csv", "text,name\nb,2\n")
    message = r"1\.csv and .*2\.csv have .* the first has 'id', only the second 'name'$"
    with pytest.raises(BadColumns, match=message):
        open_lines([one, two])
    two.write_text("text\na\n")
    with pytest.raises(BadColumns, match="only the first has 'id', only the second none"):
        open_lines(tmp_path)
    two.write_text("text,id\na,2\n")
    with open_lines(tmp_path) as table:
        two.write_text("id,x\na,2\n")
        assert "2.csv: no column 'image' or 'text'" in str(errors_of(list(table))[-1])
        two.unlink()
        with pytest.raises(RequestError, match=r"2\.csv cannot be read: No such file"):
            list(table)


FIELDS = [
    {"text": "a", "n": 1, "tag": "x"},
    {"text": "b"},
    {"image": "c.png", "n": 2, "new": 1.5},
    {"tag": "y", "text": "d", "n": 2.5},
]
"""As Spark writes rows into files, without what is null."""


def test_fields_that_a_file_of_json_lines_lacks_are_empty(tmp_path: Path) -> None:
    for number, fields in enumerate(FIELDS):
        write(tmp_path / f"{number}.jsonl", json.dumps(fields))
    with open_lines(tmp_path) as table:
        assert table.columns == ["text", "n", "tag", "image", "new"]
        assert {name: str(kind) for name, kind in table.types.items()} == {
            "n": "double",
            "new": "double",
        }
        lines = check_marks(table)
    assert errors_of(lines) == [None] * 4
    assert [line.kept for line in lines] == [
        ["a", 1, "x", None, None],
        ["b", None, None, None, None],
        [None, 2, None, "c.png", 1.5],
        ["d", 2.5, "y", None, None],
    ]
    assert [(line.row.text, line.row.image) for line in lines[1:3]] == [
        ("b", None),
        (None, "c.png"),
    ]


def test_a_field_that_only_a_later_file_has_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("score.jobs.table_chain._CHECKED", 2)
    for number, fields in enumerate([*FIELDS[:3], FIELDS[0]]):
        write(tmp_path / f"{number}.jsonl", json.dumps(fields))
    errors = errors_of(lines_of(tmp_path))
    assert [error is None for error in errors] == [True, True, False, True]
    assert (
        "2.jsonl has fields that none of the first files has: 'image', 'new'; add them to "
        in str(errors[2])
    )


@pytest.mark.parametrize("first", ["a.csv", "c.csv"])
def test_files_beside_json_lines_have_all_columns(first: str, tmp_path: Path) -> None:
    sources = [write(tmp_path / first, "text,n\na,1\n")]
    sources += [write(tmp_path / f"{n}.jsonl", json.dumps(FIELDS[n])) for n in (0, 1)]
    with pytest.raises(BadColumns, match=r"only the second 'tag'|only the first has 'tag'"):
        open_lines(sorted(sources, reverse=first == "a.csv"))


def test_a_field_that_is_a_partition_elsewhere_is_refused(tmp_path: Path) -> None:
    for one, other in (({"text": "a", "n": 1}, {"text": "a"}), ({"text": "a"}, FIELDS[0])):
        write(tmp_path / "n=1/0.jsonl", json.dumps(one))
        write(tmp_path / "n=2/1.jsonl", json.dumps(other))
        with pytest.raises(BadColumns, match="have different columns"):
            open_lines(tmp_path)


def test_fields_of_many_files_together_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("score.jobs.table_chain.MAX_COLUMNS", 4)
    for number, fields in enumerate(FIELDS):
        write(tmp_path / f"{number}.jsonl", json.dumps(fields))
    with pytest.raises(BadColumns, match=r"up to .*2\.jsonl have 5 fields together; at most 4"):
        open_lines(tmp_path)


def test_files_that_are_many_are_compared_in_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("score.jobs.table_chain._CHECKED", 2)
    for number in range(3):
        write(tmp_path / f"{number}.csv", "text,id\na,1\n" if number < 2 else "text\na\n")
    write(tmp_path / "3.csv", "text,id\na,1\n")
    lines = lines_of(tmp_path)
    errors = errors_of(lines)
    assert [error is None for error in errors] == [True, True, False, True]
    assert "0.csv and " in str(errors[2])
    assert "2.csv have different columns" in str(errors[2])


# -- files that cannot be read -----------------------------------------------------------------

LONG = {
    ".csv": b"text\n" + b"a\n" * 9 + b'"' + b"x" * 900,
    ".csv.gz": gzip.compress("".join(f"{n}\n" for n in ["text", *range(99_999)]).encode()),
    ".jsonl.gz": gzip.compress(b'{"text": "a"}\n' * 99_999),
    ".parquet": parquet({"text": [str(n) for n in range(999)]}, row_group_size=99),
    ".tar": archive(*((f"{n}.txt", b"a") for n in range(9))),
    ".tgz": gzip.compress(archive(*((f"{n}.txt", b"a") for n in range(999)))),
}


@pytest.mark.parametrize("ending", LONG)
def test_the_rest_of_a_damaged_file_is_one_row(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next file is read, and a job goes on after and before that row."""
    monkeypatch.setattr("score.tables.csv_reader.MAX_LINE", 500)
    content = bytearray(LONG[ending])
    if ending == ".parquet":
        content[len(content) // 4 : len(content) // 3] = b"\xff" * 9
    elif ending != ".csv":
        del content[len(content) // 2 :]
    for name, written in (("0", ONE_ROW[ending.replace(".jsonl.gz", ".jsonl")]), ("2", b"")):
        packed = gzip.compress(b'{"text": "a"}') if ending == ".jsonl.gz" else written
        write(tmp_path / f"{name}{ending}", packed or ONE_ROW[ending])
    write(tmp_path / f"1{ending}", bytes(content))
    with open_lines(tmp_path) as table:
        lines = list(table)
        wanted = [line.mark for line in lines]
        for number in {0, 1, len(lines) - 3, len(lines) - 2, len(lines) - 1}:
            again = [line.mark for line in table.after(lines[number].mark)]
            assert again == wanted[number + 1 :]
    errors = errors_of(lines)
    assert [at for at, error in enumerate(errors) if error] == [len(lines) - 2]
    assert isinstance(lines[-2].row.text, UnreadableFile)
    assert f"the rest of {tmp_path / '1'}{ending} is left out: 1{ending}" in str(errors[-2])
    assert len(lines) > 3 or ending == ".parquet"
    assert lines[-2].position <= lines[-1].position <= table.size


def test_a_file_without_a_readable_beginning_is_one_row(tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        write(tmp_path / f"{name}.parquet", ONE_ROW[".parquet"] if name == "1" else b"PAR1")
    lines = lines_of(tmp_path)
    assert [error is None for error in errors_of(lines)] == [False, True, False]
    with open_lines(tmp_path) as table:
        assert list(table.after((3,))) == []
    with pytest.raises(RequestError, match=r"0\.parquet is no readable parquet table"):
        open_lines([tmp_path / "0.parquet", tmp_path / "1.parquet"])  # named: at once
    (tmp_path / "1.parquet").unlink()
    with pytest.raises(RequestError, match=r"0\.parquet is no readable parquet table"):
        open_lines(tmp_path)


def test_trouble_of_a_disk_or_a_store_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends there, and goes on when the trouble has passed."""
    for name in ("0", "1", "2"):
        write(tmp_path / f"{name}.jsonl", '{"text": "a"}\n' * 3)

    def failing(self: Any, place: int) -> Any:
        if self.path.name == "1.jsonl":
            raise OSError(errno.EIO, "Input/output error")
        return read_from(self, place)

    read_from = ByteSource.read_from
    with open_lines(tmp_path) as table:
        monkeypatch.setattr(ByteSource, "read_from", failing)
        with pytest.raises(RequestError, match="Input/output error"):
            list(table)


@pytest.mark.parametrize(
    "ending", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".tsv", ".tar", ".tgz"]
)
@pytest.mark.parametrize("place", ["0", "5"])
def test_an_empty_file_among_others_has_no_rows(ending: str, place: str, tmp_path: Path) -> None:
    """As Spark and others write parts without rows."""
    full = {**ONE_ROW, ".jsonl.gz": gzip.compress(ONE_ROW[".jsonl"]), ".tsv": b"text\na\n"}
    for name in ("1", "2"):
        write(tmp_path / f"{name}{ending}", full[ending])
    empty = write(tmp_path / f"{place}{ending}", gzip.compress(b"") if "gz" in ending else b"")
    lines = lines_of(tmp_path)
    assert errors_of(lines) == [None, None]
    if ending in (".csv", ".jsonl"):
        for source in ([empty], empty):
            with pytest.raises(
                RequestError, match=rf"{place}{ending} is empty: it needs a "
            ) as told:
                open_lines(source)
            assert str(told.value).count(empty.name) == 1


def test_a_job_of_a_damaged_file_is_done_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = LONG[".tar"][: len(LONG[".tar"]) // 2]
    for number, content in enumerate([LONG[".tar"], half, LONG[".tar"]]):
        write(tmp_path / f"in/{number}.tar", content)
    words = ["embed", str(tmp_path / "in"), "--output", str(tmp_path / "job"), "--quiet"]
    for _ in range(2):
        assert main([*words, "--shard-rows", "4"]) == 1
        said = capsys.readouterr().err
        assert "1 input files could not be read to their end" in said
        assert "1 failed (unreadable_file 1)" in said
    assert len(read_content(tmp_path / "job")) > 2 * 9 + 2


def test_partitions_by_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a=1/x.csv", "text\na\n")
    write(tmp_path / "b=1/x.csv", "text\na\n")
    with pytest.raises(BadColumns, match="only the first has 'a', only the second 'b'"):
        open_lines(tmp_path)


def test_a_folder_of_two_formats_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\na\n")
    write(tmp_path / "b/c.jsonl", '{"text": "a"}')
    for source in (tmp_path, f"{tmp_path}/**"):
        with pytest.raises(RequestError, match=r"holds files of two formats, 'a.csv' and 'b/c.js"):
            open_lines(source)
    assert texts_of(lines_of(f"{tmp_path}/**/*.csv")) == ["a"]


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[Any, type[Exception], str]] = [
        ([], RequestError, "no input is named"),
        (tmp_path / "empty", RequestError, "no image below"),
        (f"{tmp_path}/*.csv", FileNotFoundError, "no file fits "),
        (f"{tmp_path}/empty*", FileNotFoundError, "no file fits "),
        (tmp_path / "gone", FileNotFoundError, "no such file or folder"),
        (tmp_path / "pipe", FileNotFoundError, "no such file or folder"),
    ]
    for source, error, message in cases:
        with pytest.raises(error, match=message):
            open_lines(source)


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\na\n")
    with pytest.raises(RequestError, match=r"the inputs name .*a\.csv 2 times"):
        open_lines([tmp_path / "a.csv", f"{tmp_path}/*.csv"])


def test_a_mark_of_another_input_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\na\n")
    with open_lines(tmp_path) as table, pytest.raises(RequestError, match="has 1 files, and its"):
        table.after((2,))


def test_a_name_that_looks_like_a_pattern_is_a_file_where_there_is_one(tmp_path: Path) -> None:
    file = write(tmp_path / "a[1]*.csv", "text\na\n")
    with open_lines(str(file)) as table:
        assert not isinstance(table, TableChain)
        assert texts_of(check_marks(table)) == ["a"]


def test_every_reader_is_found_by_the_end_of_a_name(tmp_path: Path) -> None:
    assert {".csv", ".csv.gz", ".tsv.zst", ".jsonl", ".ndjson", ".parquet", ".tar.zst"} <= {
        *READERS
    }
    assert ".parquet.gz" not in READERS
    write(tmp_path / "A.JSONL.GZ", gzip.compress(b'{"text": "a"}'))
    assert texts_of(lines_of(tmp_path / "A.JSONL.GZ")) == ["a"]


def test_a_dataset_of_many_files_is_read_whole(tmp_path: Path) -> None:
    table = pa.table({"text": [f"text {number}" for number in range(1_000)]})
    rows = {"max_rows_per_file": 300, "max_rows_per_group": 100}
    dataset.write_dataset(table, tmp_path / "data", format="parquet", **rows)
    write(tmp_path / "data/_SUCCESS", "")
    write(tmp_path / "data/.part-0.parquet.crc", "crc")
    texts = sorted(map(str, texts_of(lines_of(tmp_path / "data"))))
    assert texts == sorted(table["text"].to_pylist())
