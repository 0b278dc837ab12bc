"""Files of every format, written with another library, and read."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from score.errors import BadColumns, RequestError
from score.jobs.line_source import open_lines
from score.tables import csv_reader
from tests.support.spending import spent
from tests.support.tables import archive, cells_of, check_marks, lines_of, packed

FRAME = pd.DataFrame(
    {
        "image": ["https://host.example/a.jpg", None, "b.png"],
        "text": ['a "red" apple, ripe', "zwei\nZeilen", "日本"],
        "price": [1.5, 2.0, None],
    }
)
PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd.compress,
}
PIXELS = b"\x89PNG\r\n\x1a\nno more"


WANTED = [tuple(row) for row in FRAME[["image", "text"]].astype(object).itertuples(index=False)]


# -- written by others -------------------------------------------------------------------------


def _jsonl(file: Path) -> None:
    FRAME.to_json(file, orient="records", lines=True)


def _zstd_program(file: Path) -> None:
    content = FRAME.to_csv(index=False).encode()
    subprocess.run(["zstd", "-q", "-o", str(file)], input=content, check=True)


WRITE: Mapping[str, Callable[[Path], object]] = {
    "in.csv": lambda file: FRAME.to_csv(file, index=False),
    "in.csv.gz": lambda file: FRAME.to_csv(file, index=False),
    "IN.CSV.GZ": lambda file: FRAME.to_csv(file, index=False, compression="gzip"),
    "in.tsv": lambda file: FRAME.to_csv(file, index=False, sep="\t"),
    "in.tsv.gz": lambda file: FRAME.to_csv(file, index=False, sep="\t"),
    "in.jsonl": _jsonl,
    "in.ndjson": _jsonl,
    "in.jsonl.gz": _jsonl,
    "in.parquet": FRAME.to_parquet,
    "in.pqt": FRAME.to_parquet,
}


@pytest.mark.parametrize("name", WRITE)
def test_what_pandas_writes_is_read(name: str, tmp_path: Path) -> None:
    WRITE[name](tmp_path / name)
    with open_lines(tmp_path / name) as table:
        assert table.columns == ["image", "text", "price"]
        assert table.files == [tmp_path / name]
        lines = check_marks(table)
    assert cells_of(lines) == WANTED
    assert lines[0].kept[2] == price_in(name)
    assert lines[2].kept[:2] == list(WANTED[2])


def price_in(name: str) -> object:
    """The first row's price: parquet and JSON have numbers, CSV has text."""
    return 1.5 if {"parquet", "pqt", "jsonl", "ndjson"} & {*name.split(".")} else "1.5"


@pytest.mark.process
def test_what_the_program_zstd_writes_is_read(tmp_path: Path) -> None:
    _zstd_program(tmp_path / "in.csv.zst")
    assert cells_of(lines_of(tmp_path / "in.csv.zst")) == WANTED


def test_what_pyarrow_writes_as_zstd_is_read(tmp_path: Path) -> None:
    with pa.CompressedOutputStream(str(tmp_path / "in.tsv.zst"), "zstd") as stream:
        stream.write(FRAME.to_csv(index=False, sep="\t").encode())
    assert cells_of(lines_of(tmp_path / "in.tsv.zst")) == WANTED


@pytest.mark.parametrize("partitioned", [True, False])
def test_a_dataset_of_pyarrow_is_read(partitioned: bool, tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["a", "b", "c"], "year": ["2023", "2024", "2023"], "é": ["1", "/", "3"]}
    )
    options: dict[str, Any] = {"partition_cols": ["year", "é"]} if partitioned else {}
    pq.write_to_dataset(table, tmp_path / "data", **options)
    (tmp_path / "data/_SUCCESS").touch()
    (tmp_path / "data/.hidden.parquet").write_bytes(b"no parquet")
    (tmp_path / "data/README.md").write_text("read me")
    with open_lines(tmp_path / "data") as lines:
        assert lines.columns == ["text", "year", "é"]
        read = check_marks(lines)
    assert sorted(line.kept for line in read) == [
        ["a", "2023", "1"],
        ["b", "2024", "/"],
        ["c", "2023", "3"],
    ]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.zst", ".tgz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_tarfile_is_read(ending: str, form: int, tmp_path: Path) -> None:
    long = f"{'a' * 90}/{'b' * 60}"
    content = archive(
        *[("0.jpg", PIXELS), ("0.txt", b"eins"), ("0.json", b'{"a": 1}'), ("0.cls", b"3")],
        *[("data/1.JPG", PIXELS * 999), ("data/1.txt", b"\xef\xbb\xbfzwei")],
        *[("only.txt", "日本".encode()), (f"{long}.webp", b"long")],
        *[("README", b"x"), (".hidden.jpg", b"x"), ("__MACOSX/._0.jpg", b"x"), ("2.json", b"{}")],
        *[("ä.png", PIXELS)],
        form=form,
    )
    packing = ".gz" if ending == ".tgz" else ending.removeprefix(".tar")
    file = tmp_path / f"in{ending}"
    file.write_bytes(PACKED[packing](content))
    with open_lines(file) as table:
        assert table.columns == ["key", "image", "text", "json"]
        lines = check_marks(table)
    assert cells_of(lines) == [
        *[(PIXELS, "eins"), (PIXELS * 999, "zwei"), (None, "日本"), (b"long", None)],
        *[(None, None), (PIXELS, None)],
    ]
    assert [line.kept for line in lines[:2]] == [
        ["0", "0.jpg", "eins", '{"a": 1}'],
        ["data/1", "data/1.JPG", "zwei", None],
    ]
    assert [line.kept[0] for line in lines[2:]] == ["only", long, "2", "ä"]


def test_other_endings_are_refused_by_name_or_read_as_csv(tmp_path: Path) -> None:
    for name in ("in.json", "in.npy"):
        (tmp_path / name).write_text("text\na\n")
        with pytest.raises(RequestError, match=f"{name} is no CSV .* JSONL, parquet and tar"):
            open_lines(tmp_path / name)
    (tmp_path / "in.txt").write_text("text\na\n")
    assert cells_of(lines_of(tmp_path / "in.txt")) == [(None, "a")]
    with pytest.raises(RequestError, match=r"in\.tsv\.gz is no CSV"):
        csv_reader.CsvTable(tmp_path / "in.tsv.gz")


# -- columns by other names --------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".tsv.gz", ".jsonl", ".parquet"])
def test_columns_may_have_other_names(ending: str, tmp_path: Path) -> None:
    """A column `text` is kept beside the one that is chosen for it."""
    frame = FRAME.rename(columns={"image": "url", "text": "caption", "price": "text"})
    file = tmp_path / f"in{ending}"
    write_frame(frame, file)
    with open_lines(file, {"image": "url", "text": "caption"}) as table:
        assert table.columns == ["url", "caption", "text"]
        lines = check_marks(table)
    assert cells_of(lines) == WANTED
    assert lines[0].kept[2] == price_in(ending)
    assert lines[2].kept[:2] == list(WANTED[2])
    (only,) = {line.row.image for line in lines_of(file, {"text": "caption"})}
    assert only is None


def write_frame(frame: pd.DataFrame, file: Path) -> None:
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        frame.to_parquet(file)
    elif name.endswith(".jsonl"):
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, index=False, sep="\t" if name.endswith(".tsv") else ",")


BAD_CHOICES: list[tuple[dict[str, str], str]] = [
    (
        {"image": "url"},
        r"^in\.(csv, line 1|parquet): the column 'url', which is chosen for 'image', is missing",
    ),
    ({"image": "twice"}, "'twice', which is chosen for 'image', appears 2 times"),
    ({"image": "text"}, "'text' is chosen for 'image', and would be used for 'text', too"),
    ({"image": "id", "text": "id"}, "'id' is chosen both for 'image' and for 'text'"),
    ({"img": "id"}, "a column is chosen for 'img'; rows have only"),
]


@pytest.mark.parametrize(("chosen", "message"), BAD_CHOICES)
def test_a_choice_of_columns_that_cannot_be_is_refused(
    chosen: dict[str, str], message: str, tmp_path: Path
) -> None:
    names = ["text", "id", "twice", "twice"]
    table = pa.Table.from_arrays([pa.array(["a"])] * 4, names)
    (tmp_path / "in.csv").write_text(",".join(names) + "\na,b,c,d\n")
    (tmp_path / "in.parquet").write_bytes(packed(table))
    for name in ("in.csv", "in.parquet"):
        with pytest.raises(BadColumns, match=message):
            open_lines(tmp_path / name, chosen)


def test_images_and_archives_have_no_other_columns(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").touch()
    (tmp_path / "in.tar").write_bytes(archive(("a.txt", b"a")))
    for name in ("images", "in.tar"):
        with pytest.raises(BadColumns, match=f"{name}.* the column 'url', .* is missing"):
            open_lines(tmp_path / name, {"image": "url"})
    (tmp_path / "in.tar").write_bytes(archive(("a.txt", b"a"), ("a.json", b"{}")))
    assert cells_of(lines_of(tmp_path / "in.tar", {"text": "json"})) == [(None, "{}")]


# -- bounds ------------------------------------------------------------------------------------


def test_tabs_are_counted_before_they_are_cells(tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_bytes(b"text\na" + b"\t" * (2**20 + 1))
    with pytest.raises(RequestError, match=r"^in\.tsv: .* line 2 holds more than 1,048,576 tabs"):
        lines_of(tmp_path / "in.tsv")


@pytest.mark.process
def test_an_endless_line_packed_by_zstd_takes_little_memory(tmp_path: Path) -> None:
    """A gigabyte without a line end, in some kilobytes."""
    with zstd.open(tmp_path / "in.tsv.zst", "wb") as stream:
        stream.write(b"text\na\n")
        for _ in range(256):
            stream.write(b"b" * 2**22)
    assert (tmp_path / "in.tsv.zst").stat().st_size < 10**6
    (cost,) = spent([("tests.support.tables:read_lines", tmp_path / "in.tsv.zst")], mebibytes=400)
    assert cost.said.startswith(
        "RequestError: in.tsv.zst, line 3 is longer than 67,108,864 characters"
    )
