"""What reports read of shards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.contract.rows import Record
from score.errors import FetchFailed, RequestError
from score.tables.shard_reader import image_hashes, shard_rows
from score.tables.shard_writer import ShardWriter

ROWS = 9000  # several groups of rows
FIRST = 70_000


def sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("shards") / "part.parquet"
    vector = np.ones(4, np.float32)
    with ShardWriter(file, ["id", "image"], 4) as writer:
        for number in range(ROWS):
            error = FetchFailed("gone") if number % 1000 == 7 else None
            record = Record(error=error) if error else Record(image_features=vector)
            digest = None if number % 3 == 0 else sha256(number)
            writer.write(FIRST + number, [str(number), f"https://x/{number}"], record, digest)
    assert pq.ParquetFile(file).num_row_groups > 1
    return file


@pytest.mark.parametrize("skipped", [0, 1, 1023, 4095, 4096, 5000, ROWS - 1])
def test_rows_after_some(shard: Path, skipped: int) -> None:
    row = next(shard_rows(shard, skipped=skipped))
    assert (row.number, row.image, row.text) == (FIRST + skipped, f"https://x/{skipped}", None)


def test_all_rows_and_none(shard: Path) -> None:
    assert [row.number - FIRST for row in shard_rows(shard)] == list(range(ROWS))
    assert list(shard_rows(shard, skipped=ROWS)) == []


def test_failed_rows_alone(shard: Path) -> None:
    found = list(shard_rows(shard, failed=True))
    assert [row.number - FIRST for row in found] == list(range(7, ROWS, 1000))
    assert {(row.code, row.message) for row in found} == {("fetch_failed", "gone")}


def test_hashes_of_images(shard: Path) -> None:
    keys, rows = map(np.concatenate, zip(*image_hashes(shard), strict=True))
    wanted = [number for number in range(ROWS) if number % 3 and number % 1000 != 7]
    assert (rows - FIRST).tolist() == wanted
    assert [f"{int(key):016x}" for key in keys] == [sha256(number)[:16] for number in wanted]


def test_rows_without_numbers_are_refused(tmp_path: Path) -> None:
    numbers = pa.array([1, None], pa.int64())
    good = pa.nulls(2, pa.string())
    hashes = [sha256(1), sha256(2)]
    table = pa.table({"row_id": numbers, "image_sha256": hashes, "error_code": good})
    pq.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(RequestError, match="damaged"):
        list(image_hashes(tmp_path / "f.parquet"))


@pytest.mark.parametrize("cells", [["zz"], ["ab"], ["a" * 64, "ab"], [1]])
def test_what_is_no_hash_is_refused(tmp_path: Path, cells: list[object]) -> None:
    good = pa.nulls(len(cells), pa.string())
    numbers = list(range(len(cells)))
    table = pa.table({"row_id": numbers, "image_sha256": cells, "error_code": good})
    pq.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(RequestError, match="damaged"):
        list(image_hashes(tmp_path / "f.parquet"))


@pytest.mark.parametrize("content", [None, b"", b"PAR1 what PAR1", {"other": [1]}])
def test_damaged_shards_are_refused_by_a_sentence(tmp_path: Path, content: object) -> None:
    file = tmp_path / "f.parquet"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        pq.write_table(pa.table(content), file)
    for reading in (shard_rows(file), image_hashes(file)):
        with pytest.raises(RequestError, match=r"f\.parquet is damaged: "):
            list(reading)
