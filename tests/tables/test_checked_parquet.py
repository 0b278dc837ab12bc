"""Every reader of parquet notices a changed byte, where pages have checksums."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.contract.rows import ERRORS
from score.errors import RequestError
from score.job_folder import stored
from score.jobs import merge
from score.jobs.line_source import open_lines
from score.tables import parquet_body


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A table of which each column has a changed byte, in the data of its page."""
    table = pa.table(
        {
            "text": [f"text {number}" for number in range(100)],
            ERRORS[0]: [f"code {number}" for number in range(100)],
        }
    )
    file = tmp_path / "in.parquet"
    pq.write_table(table, file, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(file.read_bytes())
    group = pq.read_metadata(file).row_group(0)
    for number in range(group.num_columns):
        place = data.index(b" 50", group.column(number).data_page_offset) + 1
        data[place] ^= 1
    file.write_bytes(data)
    assert pq.read_table(file)["text"][50].as_py() == "text 40"  # without a look at the checksums
    return file


def lines(file: Path) -> None:
    with open_lines(file) as rows:
        list(rows)


@pytest.mark.parametrize(
    "read",
    [
        lines,
        merge._read,
        lambda file: parquet_body.read(
            io.BytesIO(file.read_bytes()), max_rows=1000, max_bytes=2**20
        ),
    ],
    ids=["lines", "merge", "body"],
)
def test_a_changed_byte_is_an_error(read: Callable[[Path], object], damaged: Path) -> None:
    with pytest.raises(RequestError, match="CRC"):
        read(damaged)


def test_a_changed_byte_makes_no_shard_whole(damaged: Path) -> None:
    assert merge._codes(damaged) is None
    with pytest.raises(stored.Damaged):
        stored._read(damaged)
