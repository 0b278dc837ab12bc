"""Every reader of tables: the same file, the same rows, the same refusals."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.exceptions import MlflowException

from score import batch, spark
from score.contract import wire
from score.contract.labels import Labels
from score.contract.limits import MAX_COLUMNS
from score.contract.params import Params
from score.core.embedder import Embedder
from score.deploy.simulate import nocode_batch
from score.errors import BadColumns, RequestError, RequestTooLarge, RowError
from score.evaluation.retrieval import retrieval
from score.jobs.embed import embed_file
from score.jobs.image_source import open_images
from score.jobs.label import label
from score.jobs.merge import merge
from score.jobs.split import split
from score.storage import inputs
from score.tables import csv_reader, frames, parquet_body, parquet_sizes
from score.tables.csv_reader import CsvRows, CsvTable
from score.tables.lines import distinct
from score.tables.parquet_reader import ParquetTable
from score.tables.parquet_sizes import check_pages
from tests.support import tables
from tests.support.images import in_base64, random_image
from tests.support.spending import spent
from tests.support.surfaces import ROOT
from tests.support.tables import packed, parquet

PNG = in_base64(random_image(1))
LINES = [
    "",
    ",",
    "image,text",
    f"{PNG},a cat",
    f"{PNG},a cat,",
    "nan,a",
    "N/A,a",
    ",a dog",
    "<NA>,a dog",
    f"{PNG}",
]
EMBEDDED = [None, "bad_type", "bad_base64", "bad_base64", None, None, "bad_type"]
IMAGED = [None, "bad_type", "bad_base64", "bad_base64", "empty_row", "empty_row", "bad_type"]
BAD_HEADERS = ["Image,text", "image,image,text", "Text,id", "url,caption", "", "image ,text"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Leading blank lines, a cell too many and one too few, and all the spellings of nothing."""
    file = tmp_path / "in.csv"
    file.write_text("\n".join(LINES) + "\n")
    return file


def embedded(embedder: Embedder, source: Path) -> list[tuple[str | None, str | None]]:
    output = source.with_suffix(".parquet")
    embed_file(embedder, source, output, Params(on_error="report"))
    written = pq.read_table(output)
    return list(zip(*(written[name].to_pylist() for name in batch.RESULT_COLUMNS[4:]), strict=True))


def labelled(embedder: Embedder, source: Path) -> list[tuple[str | None, str | None]]:
    labels = Labels.parse(["a cat", "a dog"])
    assert labels is not None
    output = source.with_suffix(".labels.csv")
    with open_images(source) as images:
        label(embedder, images, labels, output)
    with output.open(newline="") as stream:
        return [
            (line["error_code"] or None, line["error_message"]) for line in csv.DictReader(stream)
        ]


def test_jobs_read_a_table_alike(table: Path, embedder: Embedder) -> None:
    for read, wanted in ((embedded, EMBEDDED), (labelled, IMAGED)):
        codes, messages = zip(*read(embedder, table), strict=True)
        assert list(codes) == wanted, read
        assert "line 5 has 3 cells, not 2" in messages[1]
        assert "'nan' looks like a missing value" in messages[2]
    failures = retrieval(embedder, table).failures
    assert sorted(failures.by_code.elements()) == sorted(filter(None, IMAGED))


def test_azures_batch_script_reads_it_as_the_command_does(
    table: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_embedder", embedder, raising=False)
    assert [code or None for code in batch.run([str(table)])["error_code"]] == EMBEDDED


def test_shards_keep_every_line_as_it_was(table: Path, embedder: Embedder, tmp_path: Path) -> None:
    shards = split(table, tmp_path / "shards", 3)
    codes = [code for shard in shards for code, _ in embedded(embedder, shard)]
    assert codes == EMBEDDED
    assert all(shard.read_text().startswith("image,text") for shard in shards)


JOBS: list[Callable[[Embedder, Path], Any]] = [
    embedded,
    labelled,
    retrieval,
    lambda _, source: split(source, source.parent / "shards", 3),
]


@pytest.mark.parametrize("header", BAD_HEADERS)
@pytest.mark.parametrize("job", JOBS, ids=["embed", "label", "evaluate", "split"])
def test_jobs_refuse_a_header_alike(
    job: Callable[[Embedder, Path], Any], header: str, embedder: Embedder, tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    source.write_text(f"{header}\nx,a\n")
    with pytest.raises(BadColumns):
        job(embedder, source)
    assert merge(tmp_path, tmp_path / "none").unreadable.keys() == {"in.csv"}


# -- Azure's no-code batch, tried here ---------------------------------------------------------


@pytest.fixture(scope="module")
def no_code(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], pd.DataFrame]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "clip").symlink_to(ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_MODEL_DIR", str(folder))
        nocode_batch.init()
    return lambda file: nocode_batch.run([str(file)])


# What pandas and MLflow make of these is their own affair, and no wrong answer.
THEIRS = ("a zero byte", "missing images, spelled out", "a dictionary", "a column of NaN")
REFUSALS = (ValueError, OSError, MlflowException)


@pytest.mark.parametrize("case", tables.CSVS, ids=lambda case: case.id)
def test_a_no_code_try_out_answers_no_csv_wrongly(
    case: tables.Case, no_code: Callable[[Path], pd.DataFrame], embedder: Embedder, tmp_path: Path
) -> None:
    """It answers what Azure answers rightly, and refuses the rest."""
    file = tmp_path / "in.csv"
    file.write_bytes(case.data)
    if isinstance(case.expect, str) or "bad_type" in case.expect:
        with pytest.raises(ValueError, match=r"^in\.csv: .* \(Azure ") as caught:
            no_code(file)
        assert case.says in str(caught.value)
    elif "empty_row" in case.expect:
        with pytest.raises(MlflowException):
            no_code(file)
    elif case.id not in THEIRS:
        answer = no_code(file)
        assert len(answer) == len(case.expect)
        embed_file(embedder, file, tmp_path / "wanted.jsonl", Params(on_error="report"))
        wanted = map(json.loads, (tmp_path / "wanted.jsonl").read_text().splitlines())
        for vector, line in zip(answer.get("text_features", []), wanted, strict=True):
            np.testing.assert_allclose(json.loads(vector), line["text_features"], atol=1e-4)


@pytest.mark.parametrize("case", tables.PARQUETS, ids=lambda case: case.id)
def test_a_no_code_try_out_answers_no_parquet_wrongly(
    case: tables.Case, no_code: Callable[[Path], pd.DataFrame], tmp_path: Path
) -> None:
    file = tmp_path / "in.parquet"
    file.write_bytes(case.data)
    if all(isinstance(kind, set) for kind in case.expect):
        if case.id not in THEIRS:
            assert len(no_code(file)) == len(case.expect)
        return
    with pytest.raises(REFUSALS):
        no_code(file)


# -- bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mlflow_models_predict_names_a_file(table: Path, ending: str) -> None:
    file = table.with_name(f"named.csv{ending}")
    file.write_bytes(gzip.compress(table.read_bytes()) if ending else table.read_bytes())
    frame = frames.read_csv(str(file), max_rows=7)
    assert list(frame.columns) == ["image", "text"]
    assert [isinstance(cell, RowError) for cell in frame["text"]] == [
        code == "bad_type" for code in EMBEDDED
    ]
    with pytest.raises(RequestTooLarge):
        frames.read_csv(str(file), max_rows=6)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        frames.read_csv(str(tmp_path / "gone.csv"), max_rows=1)


def test_a_damaged_parquet_body_is_refused_or_read() -> None:
    """Whatever byte is wrong: no crash, and no error of another kind."""
    whole = tables.parquet({"image": ["x", None, "y"], "text": ["a", "b", "a"], "id": [1, 2, 3]})
    chance = np.random.default_rng(0)
    refused = 0
    for _ in range(2_000):
        body = bytearray(whole)
        for place in chance.integers(0, len(body), int(chance.integers(1, 4))):
            body[place] = int(chance.integers(0, 256))
        try:
            parquet_body.read(io.BytesIO(body), max_rows=10, max_bytes=10_000)
        except RequestError:
            refused += 1
    assert refused > 100


def test_shared_strings_are_in_memory_once() -> None:
    body = tables.parquet({"text": [random.Random(0).randbytes(50_000).hex()] * 10})
    assert len(body) < 200_000
    rows = parquet_body.read(io.BytesIO(body), max_rows=1_000, max_bytes=10**9)
    assert len({id(row.text) for row in rows}) == 1


@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "use_dictionary": False}])
def test_what_repeated_texts_cost_is_in_proportion_to_the_body(options: dict[str, Any]) -> None:
    """A hundred thousand rows of one text of 6,000 characters are a minute's work, in 700 bytes."""
    few = tables.parquet({"text": ["a" * 6_000] * 600}, **options)
    assert len(parquet_body.read(io.BytesIO(few), max_rows=10_000, max_bytes=10**9)) == 600
    for text, count in (("a" * 6_000, 9_999), ("a" * 30_000_000, 1)):
        body = tables.parquet({"text": [text] * count}, **options)
        assert len(body) < 2_000_000
        with pytest.raises(RequestTooLarge, match="and 16 times the"):
            parquet_body.read(io.BytesIO(body), max_rows=10_000, max_bytes=10**9)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("text,a,a.1,a,a,,", ["text", "a", "a.1", "a.2", "a.3", "Unnamed: 5", "Unnamed: 6"]),
        ("text,Unnamed: 2,", ["text", "Unnamed: 2", "Unnamed: 2.1"]),
    ],
)
def test_columns_get_the_names_that_pandas_gives_them(table: str, names: list[str]) -> None:
    assert columns_of(table) == names
    assert list(pd.read_csv(io.StringIO(table)).columns) == names


@pytest.mark.slow
def test_a_header_of_a_million_columns_is_refused_at_once() -> None:
    """A small body must not keep a server busy: by name after name, this took days."""
    with pytest.raises(BadColumns, match="the table, line 1, has 1,000,001 columns; at most 4,096"):
        columns_of("text" + ",a" * 10**6)
    assert distinct(["text", *["a"] * 10**6])[-1] == f"a.{10**6 - 1}"
    keys = json.dumps({str(number): 0 for number in range(10**6)})
    with pytest.raises(RequestError, match="the key '999999' appears more than once"):
        wire.parse(f'{keys[:-1]}, "999999": 1}}', 10**6)


def columns_of(header: str) -> list[str]:
    """The columns of a table with this header."""
    return CsvRows([f"{header}\n"], "the table").columns


# -- bounds ------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of a thousand characters at most."""
    for module in (inputs, csv_reader):
        monkeypatch.setattr(module, "MAX_LINE", 1_000)


LONG: list[tuple[bytes, str]] = [
    (
        b"text\na\n" + b"b" * 1_001,
        "line 3 is longer than 1,000 characters; .*no SCORE_MAX_IMAGE_BYTES changes",
    ),
    (b"text," + b"b" * 1_000, "line 1 is longer than 1,000 characters"),
    (b"text\r\r" + b"b" * 1_001, "line 3 is longer than"),
    (
        b'text\n"a\nb"\n\n"open' + b"\nc" * 1_000,
        "the row that begins at line 5 is longer than 1,000 characters; .*; is a quote left open",
    ),
    (b'text,"a' + b"\nb" * 1_000, "the row that begins at line 1 is longer than"),
    ("text\na".encode("utf-16") * 200, "not UTF-8"),
    ("text\na\n".encode("utf-16-le"), "zero bytes in its header: is it UTF-16"),
]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("content", "message"), LONG, ids=range(len(LONG)))
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_a_long_row_is_refused_with_its_line(
    content: bytes, message: str, ending: str, tmp_path: Path
) -> None:
    file = tmp_path / f"in{ending}"
    file.write_bytes(gzip.compress(content) if ending == ".csv.gz" else content)
    with pytest.raises(RequestError, match=rf"^in\{ending}.*{message}"), CsvTable(file) as table:
        list(table)


@pytest.mark.usefixtures("short")
def test_rows_just_short_enough_are_read(tmp_path: Path) -> None:
    rows = ["a" * 999, '"' + "b\n" * 498 + '"', "c" * 1_000]
    (tmp_path / "in.csv").write_text("\n".join(["text", *rows]))
    with CsvTable(tmp_path / "in.csv") as table:
        assert [len(str(line.row.text)) for line in table] == [999, 996, 1_000]


def test_commas_and_columns_are_counted_before_they_are_cells() -> None:
    with pytest.raises(RequestError, match=r"the row that begins at line 2 holds more than 1,048"):
        list(CsvRows(["text\n", "a" + "," * (2**20 + 1)], "the table").rows())
    names = ["text", *(f"c{number}" for number in range(MAX_COLUMNS - 1))]
    assert columns_of(",".join(names)) == names
    with pytest.raises(BadColumns, match="line 1, has 4,097 columns; at most 4,096: leave out"):
        columns_of(",".join([*names, "more"]))


def test_a_frame_may_have_any_number_of_other_columns() -> None:
    """It is in memory already."""
    names = ["text", *(f"c{number}" for number in range(MAX_COLUMNS + 100))]
    (row,) = frames.rows_of(pd.DataFrame([["a"] * len(names)], columns=names))
    assert (row.image, row.text) == (None, "a")
    with pytest.raises(BadColumns):
        frames.rows_of(pd.DataFrame([["a"] * (len(names) + 1)], columns=[*names, "text"]))


@pytest.mark.process
def test_an_endless_line_takes_little_memory(tmp_path: Path) -> None:
    """A gigabyte without a line end, in a megabyte: unpacked, it took four bytes a character."""
    with gzip.open(tmp_path / "in.csv.gz", "wb", 1) as stream:
        stream.write(b"text\na\n")
        for _ in range(256):
            stream.write(b"b" * 2**22)
    (cost,) = spent([("tests.support.tables:read_csv", tmp_path / "in.csv.gz")], mebibytes=400)
    assert cost.said.startswith(
        "RequestError: in.csv.gz, line 3 is longer than 67,108,864 characters"
    )


@pytest.mark.slow
@pytest.mark.process
def test_an_open_quote_takes_little_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "in.csv.gz", "wb", 1) as stream:
        stream.write(b'text\na\n"b')
        for _ in range(100):
            stream.write((b"b" * 99 + b"\n") * 10_000)
    (cost,) = spent([("tests.support.tables:read_csv", tmp_path / "in.csv.gz")], mebibytes=700)
    assert "the row that begins at line 3 is longer than" in cost.said


# -- parquet that costs more than it shows -----------------------------------------------------


def nested(levels: int) -> bytes:
    """A parquet file without rows, of a column in so many structs: ten bytes for each."""
    level = b"\x35\x02\x18\x01a\x15\x02\x00"  # optional, named a, with one child
    leaf = b"\x15\x0c\x25\x02\x18\x04text\x00"
    count, size = levels + 1, b""
    while count > 127:
        size += bytes([count & 127 | 128])
        count >>= 7
    schema = b"\x15\x02\x19\xfc" + size + bytes([count]) + level * levels + leaf
    footer = schema + b"\x16\x00\x19\x0c\x00"  # no rows, no row groups
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def with_footer(data: bytes, other: bytes) -> bytes:
    """The pages of one parquet file and the footer of another."""
    sizes = [int.from_bytes(file[-8:-4], "little") + 8 for file in (data, other)]
    return data[: -sizes[0]] + other[-sizes[1] :]


def refused(content: bytes, tmp_path: Path, message: str, max_bytes: int = 10**6) -> None:
    """As a body and as a job's file."""
    with pytest.raises(RequestError, match=message):
        parquet_body.read(io.BytesIO(content), max_rows=1_000, max_bytes=max_bytes)
    (tmp_path / "in.parquet").write_bytes(content)
    with (
        pytest.raises(RequestError, match=rf"in\.parquet.*{message}"),
        ParquetTable(tmp_path / "in.parquet") as table,
    ):
        list(table)


def test_columns_nested_deeply_or_many_are_refused(tmp_path: Path) -> None:
    """pyarrow descends by recursion: a hundred thousand levels overflow its stack."""
    refused(nested(100_000), tmp_path, "nested more than 64 levels deep")
    deep: pa.DataType = pa.string()
    for _ in range(20):
        deep = pa.list_(deep)
    shallow = parquet({"text": ["a"], "deep": pa.array([None], deep)})
    assert len(parquet_body.read(io.BytesIO(shallow), max_rows=1, max_bytes=10**6)) == 1
    many = {"text": ["a"]} | {f"c{number}": ["a"] for number in range(MAX_COLUMNS)}
    refused(parquet(many), tmp_path, "has 4,097 columns; at most 4,096")


def test_a_page_is_measured_by_its_own_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The footer may say that a page is small, while pyarrow allocates what its header says."""
    monkeypatch.setattr(parquet_sizes.check_pages, "__defaults__", (1_000,))
    large = parquet({"text": ["a" * 10**5]}, compression="zstd")
    small = parquet({"text": ["a"]}, compression="zstd")
    message = "row group 0, column 'text': a page has 100,004 bytes, unpacked; at most 1,000"
    refused(with_footer(large, small), tmp_path, message, max_bytes=1_000)
    with pytest.raises(RequestTooLarge):  # as the footer says itself
        parquet_body.read(io.BytesIO(large), max_rows=1, max_bytes=1_000)
    for version in ("1.0", "2.0"):
        options = {"data_page_version": version, "use_dictionary": False, "row_group_size": 50}
        lines = parquet({"text": ["a"] * 60 + ["b" * 2_000]}, **options)
        (tmp_path / "in.parquet").write_bytes(lines)
        read = []
        with (
            pytest.raises(RequestError, match="row group 1, column 'text': a page has 2,"),
            ParquetTable(tmp_path / "in.parquet") as table,
        ):
            read += [line.row.text for line in table]  # type: ignore[misc]


def test_a_page_of_what_does_not_shrink_may_be_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos, of which pyarrow writes a thousand into a page."""
    monkeypatch.setattr(parquet_sizes.check_pages, "__defaults__", (1_000,))
    photos = {"image": [random_image(0, (200, 200))] * 2}
    file = tmp_path / "in.parquet"
    file.write_bytes(parquet(photos, use_dictionary=False, compression="none"))
    with ParquetTable(file) as table:
        assert len(list(table)) == 2
    with pytest.raises(RequestError, match="at most 1,000"), file.open("rb") as body:
        check_pages(body, "the body", pq.read_metadata(file), 0, [0], 1_000, times_packed=0)
    monkeypatch.setattr(parquet_sizes, "_LARGEST_PAGE", 20_000)
    message = "a page has .* bytes, unpacked; at most 20,000: .* write_batch_size"
    with pytest.raises(RequestError, match=message), ParquetTable(file) as table:
        list(table)


def test_a_damaged_page_header_is_said_to_be_damaged(tmp_path: Path) -> None:
    content = parquet({"text": ["a"]}, use_dictionary=False)
    file = tmp_path / "in.parquet"
    file.write_bytes(content[:4] + b"\0" + content[5:])  # a header without fields
    message = r"^in\.parquet, row group 0, column 'text' has a damaged page header$"
    with pytest.raises(RequestError, match=message), ParquetTable(file) as table:
        list(table)


def test_a_row_group_of_other_than_its_rows_is_refused(tmp_path: Path) -> None:
    """Lines after it would be counted wrongly, and a job that goes on would leave some out."""
    file = tmp_path / "in.parquet"
    few, many = (parquet({"text": ["a"] * count}) for count in (100, 200))
    file.write_bytes(with_footer(few, many))
    message = r"^in\.parquet, row group 0, has 100 rows, not 200 as the file's footer says$"
    with pytest.raises(RequestError, match=message), ParquetTable(file) as table:
        list(table)


def test_many_columns_of_one_name_are_read_once(tmp_path: Path) -> None:
    """By name pyarrow reads each of them for each: 3,000 of a kilobyte took hours."""
    names = ["text", *["a", "b"] * 1_500]
    columns = [pa.array([str(number)]) for number in range(len(names))]
    (tmp_path / "in.parquet").write_bytes(packed(pa.Table.from_arrays(columns, names)))
    began = time.monotonic()
    with ParquetTable(tmp_path / "in.parquet") as table:
        (line,) = table
    assert line.kept == [str(number) for number in range(len(names))]
    assert time.monotonic() - began < 60


@pytest.mark.process
def test_a_string_that_rows_share_is_in_memory_once(tmp_path: Path) -> None:
    content = parquet({"text": ["a" * 2**23] * 256}, compression="zstd")
    assert len(content) < 100_000
    (tmp_path / "in.parquet").write_bytes(content)
    (cost,) = spent(
        [("tests.support.tables:read_parquet", tmp_path / "in.parquet", 256 * 2**23)],
        mebibytes=300,
    )
    assert not cost.said


# -- Spark -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [["Image", "text"], ["Text"], ["url"], ["text", "text"]])
def test_spark_refuses_columns_before_it_starts(columns: list[str]) -> None:
    class Table:
        def __init__(self) -> None:
            self.columns = columns

    with pytest.raises(BadColumns):
        spark.embed_table(Table(), "model")  # type: ignore[arg-type]


def test_spark_takes_missing_cells_as_the_rest_does(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark, "_loaded", lambda model: embedder)
    missing = [None, "", " ", "<NA>", float("nan"), pd.NA, pd.NaT]
    frame = pd.DataFrame({"image": [*missing, "nan"], "text": ["a"] * 8}, dtype=object)
    numbers = pd.DataFrame({"image": [float("nan")], "text": ["a"]})
    answered, alone = spark.embed([frame, numbers], "any")
    assert list(answered["error_code"]) == [None] * 7 + ["bad_base64"]
    assert list(alone["error_code"]) == [None]
