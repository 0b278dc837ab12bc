"""What reports read of a job's shards: errors, cells and hashes, never vectors.

A group of a few thousand rows is read at a time, of the columns that are asked for alone. Shards
may be damaged, or be written again by a running job: the caller goes on without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from score.contract.rows import ERRORS, IMAGE, TEXT
from score.errors import RequestError
from score.tables.base_writer import SHA256
from score.tables.checked_parquet import open_parquet
from score.tables.shard_writer import IMAGE_COLUMN, ROW

_CODE, _MESSAGE, _ = ERRORS
_BATCH, _HASHES = 1024, 2**16  # rows at a time
_DIGEST = 32  # bytes of a hash


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A row of a shard without its vectors. code, message: of its error; None for a good one."""

    number: int
    code: str | None
    message: str | None
    image: str | None
    text: str | None


def shard_rows(file: Path, *, failed: bool = False, skipped: int = 0) -> Iterator[ShardRow]:
    """A shard's rows in order. failed: only those. skipped: rows before the first of them.

    Raises RequestError for a shard that is damaged or not there.
    """
    with _opened(file) as shard:
        metadata = shard.schema_arrow.metadata or {}
        image = metadata.get(IMAGE_COLUMN.encode(), IMAGE.encode()).decode()
        cells = [name for name in (image, TEXT) if name in shard.schema_arrow.names]
        groups, skipped = _groups(shard, skipped)
        for batch in _batches(shard, [ROW, _CODE, _MESSAGE, *cells], _BATCH, groups):
            left = batch.slice(skipped)
            skipped = max(skipped - len(batch), 0)
            if failed:
                left = left.filter(pc.is_valid(left[_CODE]))
            for row in left.to_pylist():
                yield ShardRow(row[ROW], row[_CODE], row[_MESSAGE], row.get(image), row.get(TEXT))


def image_hashes(file: Path) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """The hashes of a shard's images, and the numbers of their rows. Rows that failed are left out:
    what was fetched for them, a page that says so, say, is often no image.

    A hash is its first eight bytes, as an integer. Raises RequestError as `shard_rows`.
    """
    with _opened(file) as shard:
        for batch in _batches(shard, [ROW, SHA256, _CODE], _HASHES):
            is_image = pc.and_(pc.is_valid(batch[SHA256]), pc.is_null(batch[_CODE]))
            with_image = batch.filter(is_image)
            numbers: NDArray[np.int64] = with_image[ROW].to_numpy(zero_copy_only=False)
            digests = bytes.fromhex("".join(with_image[SHA256].to_pylist()))
            if len(digests) != _DIGEST * len(numbers) or numbers.dtype != np.int64:
                raise RequestError(f"{file} is damaged: {ROW} or {SHA256} holds what is none")
            words = np.frombuffer(digests, ">u8").astype(np.uint64)
            yield words[:: _DIGEST // 8], numbers


def _groups(shard: pq.ParquetFile, skipped: int) -> tuple[list[int], int]:
    """The row groups after some rows, and how many rows of the first are still to be skipped."""
    sizes = [shard.metadata.row_group(at).num_rows for at in range(shard.num_row_groups)]
    begin = 0
    while begin < len(sizes) and skipped >= sizes[begin]:
        skipped -= sizes[begin]
        begin += 1
    return list(range(begin, len(sizes))), skipped


def _batches(
    shard: pq.ParquetFile, names: Sequence[str], rows: int, groups: Sequence[int] | None = None
) -> Iterator[Any]:
    # Without threads: a report must not take the machine from the job that it tells of.
    yield from shard.iter_batches(rows, groups, list(names), use_threads=False)


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with open_parquet(file, pre_buffer=False) as shard:
            yield shard
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{file} is damaged: {error}") from error
