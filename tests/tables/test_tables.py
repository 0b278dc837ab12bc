"""Every reader of tables: the same file, the same rows, the same refusals."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow.exceptions import MlflowException

from score import batch, spark
from score.contract import wire
from score.contract.labels import Labels
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
from score.tables import frames, parquet_body
from score.tables.csv_reader import CsvRows
from tests.support import tables
from tests.support.images import in_base64, random_image
from tests.support.surfaces import ROOT

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


@pytest.mark.slow
def test_shared_strings_are_in_memory_once() -> None:
    """A hundred thousand rows of one text of a megabyte, in some kilobytes."""
    body = tables.parquet({"text": ["a" * 10**6] * 1_000})
    assert len(body) < 200_000
    with pytest.raises(RequestTooLarge):
        parquet_body.read(io.BytesIO(body), max_rows=1_000, max_bytes=10**8)
    rows = parquet_body.read(io.BytesIO(body), max_rows=1_000, max_bytes=10**9)
    assert len({id(row.text) for row in rows}) == 1


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
def test_a_header_of_a_million_columns_is_read_at_once() -> None:
    """A small body must not keep a server busy: by name after name, this took days."""
    assert columns_of("text" + ",a" * 10**6)[-1] == f"a.{10**6 - 1}"
    keys = json.dumps({str(number): 0 for number in range(10**6)})
    with pytest.raises(RequestError, match="the key '999999' appears more than once"):
        wire.parse(f'{keys[:-1]}, "999999": 1}}')


def columns_of(header: str) -> list[str]:
    """The columns of a table with this header."""
    return CsvRows([f"{header}\n"], "the table").columns


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
