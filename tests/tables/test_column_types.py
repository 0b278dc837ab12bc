"""Numbers, booleans, dates and timestamps of an input keep their types in every output."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.contract.params import Params
from score.core.embedder import Embedder
from score.errors import RequestError
from score.index.build import build_index
from score.index.index import Index
from score.job_folder.embed import embed_into
from score.job_folder.manifest import Manifest
from score.jobs.embed import embed_lines
from score.jobs.line_source import open_lines
from score.tables import jsonl_reader
from score.tables.column_types import stored_as
from tests.support.job_folders import content
from tests.support.tables import check_marks, errors_of, lines_of, parquet

TYPED = pa.table(
    {
        "text": ["a cat", "a dog"],
        "whole": pa.array([7, None], pa.int32()),
        "large": pa.array([2**63 + 1, 0], pa.uint64()),
        "price": [1.5, None],
        "is_new": [True, None],
        "exact": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
        "day": [date(2024, 2, 29), None],
        "nanos": pa.array([1_700_000_000_000_000_001, None], pa.timestamp("ns")),
        "zoned": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
    }
)
AS_TEXT = pa.table({"tags": [["x"], None], "nothing": pa.nulls(2), "word": ["a", None]})
WITH_TEXT = TYPED.append_column("tags", AS_TEXT["tags"]).append_column("nothing", pa.nulls(2))


BYTES = pa.table(
    {
        "blob": [b"1", b"2"],
        "large": pa.array([b"1", b"2"], pa.large_binary()),
        "fixed": pa.array([b"12", b"34"], pa.binary(2)),
        "coded": pa.array([b"1", b"1"]).dictionary_encode(),
        "image": pa.array([b"no image", None]),
        "n": [1, 2],
        "text": ["a cat", "a dog"],
    }
)


@pytest.mark.parametrize("odd", [None, "a.b", "blob"])
def test_columns_of_bytes_are_left_out(odd: str | None, tmp_path: Path) -> None:
    """But for the images; also where all columns have to be read, for a name's sake."""
    table = BYTES
    if odd:
        table = pa.table([*table.columns, table["blob"]], names=[*table.column_names, odd])
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    with open_lines(tmp_path / "in.parquet") as lines:
        assert lines.columns == ["image", "n", "text"]
        assert [(line.kept, line.row.image, line.row.text) for line in check_marks(lines)] == [
            ([None, 1, "a cat"], b"no image", "a cat"),
            ([None, 2, "a dog"], None, "a dog"),
        ]


def embed(embedder: Embedder, source: Any, output: Path) -> None:
    with open_lines(source) as lines:
        if output.suffix:
            embed_lines(embedder, lines, output, Params(on_error="report"))
        else:
            embed_into(embedder, lines, output, Params(on_error="report"))


def test_parquets_types_are_those_of_a_job_and_of_its_index(
    embedder: Embedder, tmp_path: Path
) -> None:
    pq.write_table(WITH_TEXT, tmp_path / "in.parquet")
    embed(embedder, tmp_path / "in.parquet", tmp_path / "job")
    embed(embedder, tmp_path / "in.parquet", tmp_path / "out.parquet")
    for found in (content(tmp_path / "job"), pq.read_table(tmp_path / "out.parquet")):
        assert found.select(TYPED.column_names).cast(TYPED.schema).equals(TYPED)
        assert found.schema.types[found.column_names.index("tags")] == pa.string()
        assert found["tags"].to_pylist() == ['["x"]', None]
        for name in TYPED.column_names:
            assert found.schema.field(name).type == TYPED.schema.field(name).type, name
    build_index([tmp_path / "job"], tmp_path / "index", column="text_features")
    index, query = Index(tmp_path / "index"), embedder.embed_text("a cat")
    for where in ("price < 50", "whole = 7", "is_new", "exact < 2", "day > date '2024-01-01'"):
        (hit,) = index.search(query, where=where)
        assert hit.row["text"] == "a cat"
    assert not index.search(query, where="price > 50")


def test_other_outputs_spell_them(embedder: Embedder, tmp_path: Path) -> None:
    pq.write_table(WITH_TEXT, tmp_path / "in.parquet")
    for name in ("out.csv", "out.jsonl"):
        embed(embedder, tmp_path / "in.parquet", tmp_path / name)
    first, second = (tmp_path / "out.jsonl").read_text().splitlines()
    row = json.loads(first)
    assert (row["whole"], row["price"], row["is_new"], row["large"]) == (7, 1.5, True, 2**63 + 1)
    assert (row["exact"], row["day"]) == ("1.50", "2024-02-29")
    assert json.loads(second)["price"] is None
    header, line, _ = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("text,whole,large,price,is_new,exact,day,nanos,zoned,tags,nothing,")
    assert line.startswith("a cat,7,9223372036854775809,1.5,True,1.50,2024-02-29,2023-11-14 22:13:")


JSON_TYPES: list[tuple[list[Any], pa.DataType]] = [
    ([1, None, 2], pa.int64()),
    ([1, 2**60], pa.int64()),
    ([1, 2.5], pa.float64()),
    ([2.5, 2**60 + 1], pa.string()),  # a double would not hold it
    ([2**63], pa.string()),
    ([True, False], pa.bool_()),
    ([True, 1], pa.string()),
    (["1", "2"], pa.string()),
    ([1, "", 2], pa.int64()),
    ([1, "n/a"], pa.string()),
    ([None, ""], pa.string()),
    ([[1], {"a": 1}], pa.string()),
]


@pytest.mark.parametrize(("values", "kind"), JSON_TYPES, ids=[str(v) for v, _ in JSON_TYPES])
def test_fields_of_json_lines_have_the_type_of_their_values(
    values: list[Any], kind: pa.DataType, tmp_path: Path
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"text": "a", "n": value}) + "\n" for value in values))
    with open_lines(file) as table:
        assert stored_as("n", table.types) == kind
        assert stored_as("text", table.types) == pa.string()
        lines = check_marks(table)
    assert errors_of(lines) == [None] * len(values)
    found = pa.array([line.kept[1] for line in lines], kind).to_pylist()
    if not pa.types.is_string(kind):
        assert found == [None if value == "" else value for value in values]


def test_a_later_value_of_another_type_fails_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl_reader, "_HEAD_LINES", 1)
    later = [5.0, None, 5.5, "7", True, 2**63, [1]]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(f'{{"text": "a", "n": {json.dumps(v)}}}\n' for v in [1, *later]))
    lines = lines_of(file)
    assert [line.kept[1] for line in lines] == [1, 5, None, None, None, None, None, None]
    errors = errors_of(lines)
    assert errors[:3] == [None] * 3
    assert errors[3] == (
        "line 4 has 5.5 in 'n', which holds whole numbers in the first rows: write all its values "
        "in one type, or as texts"
    )
    assert errors[4] is not None
    assert errors[4].startswith("line 5 has '7' in 'n'")
    assert all(errors[3:])


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ((pa.int32(), pa.int64()), pa.int64()),
        ((pa.int64(), pa.float64()), pa.float64()),
        ((pa.null(), pa.int64()), pa.int64()),
        ((pa.bool_(), pa.int64()), pa.string()),
        ((pa.string(), pa.int64()), pa.string()),
    ],
    ids=str,
)
def test_a_column_of_two_types_has_the_one_that_holds_both(
    kinds: tuple[pa.DataType, pa.DataType], wanted: pa.DataType, tmp_path: Path
) -> None:
    for number, kind in enumerate(kinds):
        cell = None if pa.types.is_null(kind) else pa.scalar(1).cast(kind).as_py()
        file = tmp_path / f"data/{number}.parquet"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(parquet({"text": ["a"], "n": pa.array([cell], kind)}))
    with open_lines(tmp_path / "data") as table:
        assert stored_as("n", table.types) == wanted
        lines = check_marks(table)
    assert errors_of(lines) == [None, None]
    pa.array([line.kept[1] for line in lines], wanted)


def test_a_file_that_is_not_looked_at_first_may_fail_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("score.jobs.table_chain._CHECKED", 1)
    for number, numbers in enumerate(([1], [2.0, 2.5])):
        cells = {"text": ["a"] * len(numbers), "n": numbers}
        (tmp_path / f"{number}.parquet").write_bytes(parquet(cells))
    lines = lines_of(tmp_path)
    assert [line.kept[1] for line in lines] == [1, 2, None]
    errors = errors_of(lines)
    assert errors[:2] == [None, None]
    assert "1.parquet has 2.5 in 'n', which holds whole numbers" in str(errors[2])


@pytest.mark.parametrize(
    "odd", [pa.array([2**62], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "No/Where"))]
)
def test_a_time_that_python_cannot_hold_is_refused(odd: pa.Array, tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(parquet({"text": ["a"], "when": odd}))
    with (
        open_lines(tmp_path / "in.parquet") as table,
        pytest.raises(RequestError, match=r"in\.parquet cannot be read"),
    ):
        list(table)


def test_a_job_that_kept_text_does_not_go_on_with_types(embedder: Embedder, tmp_path: Path) -> None:
    """As a job that an older version began."""
    pq.write_table(TYPED, tmp_path / "in.parquet")
    embed(embedder, tmp_path / "in.parquet", tmp_path / "job")
    file = tmp_path / "job/manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest["types"]["price"] == "double"
    del manifest["types"]
    file.write_text(json.dumps(manifest))
    assert Manifest.read(tmp_path / "job").types == {}
    with pytest.raises(RequestError, match="'whole' was kept as text, and would be int32 now"):
        embed(embedder, tmp_path / "in.parquet", tmp_path / "job")
