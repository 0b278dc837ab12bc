"""Rows with what was found out about them, in each format."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.errors import RequestError
from score.index.row_file import beside, row_file

ROWS = pa.record_batch(
    {
        "name": ['a "b", c\nd', None],
        "group": [7, 8],
        "data": pa.array([b"\x00\xff", None]),
        "tags": pa.array([["x", "y"], None], pa.list_(pa.string())),
        "at": pa.array([datetime(2024, 1, 2, tzinfo=UTC), None]),
        "price": [1.5, float("nan")],
    }
)
BATCH = beside({"group": pa.array([1, 1])}, ROWS, {"cosine": pa.array([1.0, 0.97])})


def written(file: Path) -> Path:
    with row_file(file, BATCH.schema) as rows:
        rows.write_batch(BATCH)
        rows.write_batch(BATCH.slice(0, 0))
    return file


def test_columns_of_one_name_are_told_apart() -> None:
    assert BATCH.schema.names == [
        *("group", "name", "row.group", "data", "tags", "at", "price", "cosine")
    ]


def test_csv_has_every_value_as_text(tmp_path: Path) -> None:
    with written(tmp_path / "o.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert first == {
        "group": "1",
        "name": 'a "b", c\nd',
        "row.group": "7",
        "data": "AP8=",
        "tags": '["x", "y"]',
        "at": "2024-01-02T00:00:00+00:00",
        "price": "1.5",
        "cosine": "1",
    }
    assert (second["name"], second["data"], second["tags"], second["cosine"]) == (
        "",
        "",
        "",
        "0.97",
    )


def test_json_lines_have_values_of_json(tmp_path: Path) -> None:
    first, second = map(json.loads, written(tmp_path / "o.jsonl").read_text().splitlines())
    assert (first["tags"], first["data"], first["cosine"]) == (["x", "y"], "AP8=", 1.0)
    assert second["price"] is None


def test_parquet_keeps_types(tmp_path: Path) -> None:
    assert pq.read_table(written(tmp_path / "o.parquet")).schema == BATCH.schema


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"o\.txt must end in \.csv, \.parquet, \.jsonl"):
        written(tmp_path / "o.txt")


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_a_file_that_is_not_finished_does_not_appear(ending: str, tmp_path: Path) -> None:
    def interrupted() -> None:
        with row_file(tmp_path / f"o{ending}", BATCH.schema) as rows:
            rows.write_batch(BATCH)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [*tmp_path.iterdir()]
