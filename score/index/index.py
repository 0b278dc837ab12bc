"""An index of vectors in a folder, with exact nearest-neighbour search by cosine.

`vectors.npy`: float16 [N, D], unit vectors, memory-mapped: opening the folder does not read it.
`rows.parquet`: the other columns of the table, N rows in the same order. The search is exact, and
fast enough for a few million rows; hundreds of millions need an approximate index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from score.contract.rows import ERRORS, FEATURES
from score.errors import RequestError
from score.model.zeroshot import unit
from score.storage import atomic
from score.storage.outputs import check_folder
from score.type_aliases import FeatureColumn, Vector

_BATCH = 4096  # rows read or multiplied at a time
_VECTORS, _ROWS = "vectors.npy", "rows.parquet"


@dataclass(frozen=True, slots=True)
class Hit:
    """A result: a row, and the cosine of its vector with the query's, from -1 to 1."""

    score: float
    row: dict[str, Any]


def build_index(
    table: str | Path,
    folder: str | Path,
    column: FeatureColumn = "image_features",
    *,
    overwrite: bool = False,
) -> int:
    """Indexes the vectors of a parquet file of `score embed` or `score merge`; returns
    their number.

    Rows without a vector in `column` are skipped. `overwrite`: the folder may hold an older index.
    Raises RequestError for a table without vectors, and for a folder that may not be written.
    """
    table, folder = Path(table), Path(folder)
    check_folder(folder, _is_index, overwrite=overwrite, inputs=[table])
    try:
        schema = pq.read_schema(table)
    except pa.ArrowInvalid as error:
        raise RequestError(f"{table} is not a parquet file: {error}") from error
    if column not in schema.names:
        raise RequestError(f"{table} has no column {column}")
    count, dimension = _extent(table, column)
    if not count:
        raise RequestError(f"{table} has no row with {column}")
    columns = [name for name in schema.names if name not in (*FEATURES, *ERRORS)]
    rows = pa.schema([schema.field(name) for name in columns])
    with atomic.contents(folder) as new:
        vectors = open_memmap(new / _VECTORS, "w+", np.float16, (count, dimension))
        start = 0
        with pq.ParquetWriter(new / _ROWS, rows) as writer:
            for batch in _batches(table, [*columns, column]):
                matrix = _matrix(batch, column)
                vectors[start : start + len(matrix)] = unit(matrix)
                start += len(matrix)
                writer.write_batch(batch.select(columns))
        vectors.flush()
    return count


def _is_index(content: Sequence[Path]) -> bool:
    return {entry.name for entry in content} == {_VECTORS, _ROWS}


def _batches(table: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows that have a vector, which is the last of the columns."""
    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(_BATCH, columns=columns):
            yield batch.filter(batch.column(columns[-1]).is_valid())


def _extent(table: Path, column: str) -> tuple[int, int]:
    """Number and dimension of the vectors."""
    count, dimension = 0, 0
    for batch in _batches(table, [column]):
        count += len(batch)
        if len(batch):
            dimension = len(batch.column(column)[0])
    return count, dimension


def _matrix(batch: pa.RecordBatch, column: str) -> np.ndarray:
    """The vectors of a batch: float32 [N, D]."""
    values = batch.column(column).flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(batch), -1) if len(batch) else np.empty((0, 1), np.float32)


class Index:
    """An index that `build_index` wrote to a folder."""

    def __init__(self, folder: str | Path) -> None:
        """Opens the index. Raises RequestError for a folder that holds none."""
        try:
            self._vectors = np.load(Path(folder, _VECTORS), mmap_mode="r")
            self._rows = pq.read_table(Path(folder, _ROWS))
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise RequestError(f"{folder} holds no index: {error}") from error

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dimension(self) -> int:
        """The dimension of its vectors."""
        return int(self._vectors.shape[1])

    def check(self, dimension: int) -> None:
        """Raises RequestError unless a model's vectors are of the index's dimension."""
        if dimension != self.dimension:
            raise RequestError(
                f"the index holds vectors of {self.dimension} numbers, the query has {dimension}: "
                "was the table embedded with another model?"
            )

    def search(self, query: Vector, top: int = 10) -> list[Hit]:
        """The `top` rows nearest to a vector [D], which need not be normalised, nearest first.

        Raises RequestError for a vector of another model's dimension.
        """
        self.check(query.size)
        direction = unit(query)
        scores = np.concatenate(
            [
                self._vectors[start : start + _BATCH].astype(np.float32) @ direction
                for start in range(0, len(self), _BATCH)
            ]
        )
        best = np.argsort(-scores, kind="stable")[:top].tolist()
        rows = self._rows.take(best).to_pylist()
        return [Hit(float(scores[number]), row) for number, row in zip(best, rows, strict=True)]
