"""Which rows of a job are still to be done, where shards were completed in any order."""

from __future__ import annotations

from pathlib import Path

import pytest

from score.core.embedder import Embedder
from score.job_folder.ledger import Entry, in_order
from score.job_folder.ranges import Range, containing, missing
from score.job_folder.status import Status
from tests.job_folder.test_embed import ROWS, run
from tests.job_folder.test_embed import table as table
from tests.support.job_folders import assert_same, content, entries


def entry(first: int, rows: int, retryable: int = 0) -> Entry:
    end = first + rows
    return Entry(first, rows, f"{first}", 1, (end,), 10 * end, retryable=retryable)


def ledger(*lines: Entry) -> dict[int, Entry]:
    return {line.first: line for line in lines}


@pytest.mark.parametrize(
    ("lines", "rows", "wanted"),
    [
        ([], None, [Range(0, None, None)]),
        ([], 0, []),
        ([entry(5, 5)], None, [Range(0, 5, None), Range(10, None, (10,))]),
        ([entry(20, 5), entry(0, 5), entry(10, 5)], 25, [Range(5, 5, (5,)), Range(15, 5, (15,))]),
        ([entry(0, 5), entry(5, 0), entry(8, 2)], 10, [Range(5, 3, (5,))]),
    ],
)
def test_missing_rows(lines: list[Entry], rows: int | None, wanted: list[Range]) -> None:
    assert missing(ledger(*lines), rows) == wanted


def test_the_rows_of_chosen_shards() -> None:
    lines = ledger(entry(8, 2, 1), entry(0, 5, 1), entry(10, 2, 1), entry(5, 1))
    chosen = containing(lines, lambda entry: entry.retryable > 0)
    assert chosen == [Range(0, 5, None), Range(10, 2, (10,))]  # nothing tells where row 8 is


def test_rows_between_others_are_embedded_in_shards_of_the_usual_length(
    table: Path, tmp_path: Path, embedder: Embedder
) -> None:
    """Of a job that several processes worked on when they were killed."""
    folder = tmp_path / "job"
    run(embedder, table, folder)
    whole = content(folder)
    file = folder / "ledger.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[4] + lines[1])
    status = Status.of(folder)
    assert (status.rows, status.is_complete) == (35, False)
    assert status.share == pytest.approx(35 / ROWS, abs=0.05)
    assert run(embedder, table, folder, shard_rows=15).earlier == 35
    found = [(one.first, one.rows) for one in entries(folder)]
    assert found == [(0, 15), (15, 5), (20, 20), (40, 15), (55, 15), (70, 10), (80, 15)]
    assert_same(content(folder), whole)


def test_a_shard_that_cannot_be_read_now_is_not_removed(
    table: Path, tmp_path: Path, embedder: Embedder
) -> None:
    folder = tmp_path / "job"
    run(embedder, table, folder)
    shard = folder / entries(folder)[2].file
    shard.rename(tmp_path / "elsewhere")
    shard.mkdir()
    with pytest.raises(IsADirectoryError):
        run(embedder, table, folder)
    shard.rmdir()
    (tmp_path / "elsewhere").rename(shard)
    assert run(embedder, table, folder).earlier == ROWS


def test_the_order_is_that_of_rows() -> None:
    assert [one.first for one in in_order(ledger(entry(7, 1), entry(3, 0), entry(0, 2)))] == [0, 7]
