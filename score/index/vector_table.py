"""A parquet file of vectors, read in batches of which each vector is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from score.contract.rows import ERRORS, FEATURES
from score.errors import RequestError
from score.index.origin import Origin
from score.index.parquet_batches import read_batches
from score.model.zeroshot import unit
from score.tables.parquet_sizes import check_schema
from score.type_aliases import Matrix
from score.wording.quoting import quoted

NUMBER = "row"
"""The column that stands for a table without other columns than vectors: the number of each row."""

_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


@dataclass(frozen=True, slots=True)
class VectorTable:
    """A file that holds a column of vectors.

    columns: those that are kept beside the vectors, all but vectors and errors. Their dictionaries
    are values here, which differ by file, and lists of a fixed length are lists. size: its rows.
    """

    path: Path
    column: str
    columns: pa.Schema
    origin: Origin
    size: int

    @classmethod
    def open(cls, path: Path, column: str) -> VectorTable:
        """Reads the file's schema. Raises RequestError unless `column` holds lists of floats, and
        each name is there once; FileNotFoundError."""
        with _reading(path), path.open("rb") as stream:
            check_schema(stream, str(path))
            metadata = pq.read_metadata(path)
            schema = metadata.schema.to_arrow_schema()
        _check_column(path, schema, column)
        kept = [
            pa.field(field.name, _plain(field.type))
            for field in schema
            if field.name not in (*FEATURES, *ERRORS)
        ]
        about: Mapping[bytes, bytes] = schema.metadata or {}
        return cls(path, column, pa.schema(kept), Origin.of(about), metadata.num_rows)

    def batches(self, first: int = 0) -> Iterator[tuple[pa.RecordBatch, Matrix]]:
        """The rows that have a vector: their columns, or for none their numbers, of which the
        table's first row has `first`; and unit vectors, float32 [N, D].

        Raises RequestError for a vector that cannot be indexed, with the row's number in the table.
        """
        names, start, dimension = self.columns.names, 0, 0
        with _reading(self.path):
            for batch in read_batches(self.path, [*names, self.column]):
                vectors = batch.column(self.column)
                numbers = np.flatnonzero(vectors.is_valid().to_numpy(zero_copy_only=False))
                lists = vectors.take(pa.array(numbers))
                if len(lists):
                    where = f"{self.path}, column {self.column}, row "
                    dimension = dimension or len(lists[0])
                    matrix = unit(_matrix(lists, dimension, where, start + numbers))
                    if names:
                        yield batch.select(names).take(pa.array(numbers)), matrix
                    else:  # a table without columns has no rows
                        shown = pa.array(first + start + numbers)
                        yield pa.record_batch({NUMBER: shown}), matrix
                start += len(batch)

    def extent(self) -> tuple[int, int]:
        """Number and dimension of its vectors, all of which are checked; 0 and 0 for none."""
        count, dimension = 0, 0
        for _, matrix in self.batches():
            count += len(matrix)
            dimension = matrix.shape[1]
        return count, dimension

    def conformed(self, batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
        """A batch's columns as `columns` want them: those that it lacks are null.

        Raises RequestError for values that are not of the type.
        """
        arrays = []
        for field in columns:
            if field.name not in batch.schema.names:
                arrays.append(pa.nulls(len(batch), field.type))
                continue
            try:
                arrays.append(batch.column(field.name).cast(field.type))
            except pa.ArrowException as error:
                raise RequestError(
                    f"{self.path}, column {quoted(field.name)} cannot be {field.type!s:.80}: "
                    f"{error!s:.200}"
                ) from error
        return pa.record_batch(arrays, schema=columns)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises RequestError, which names the table, for what Arrow cannot read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        what = "is not a parquet file" if isinstance(error, pa.ArrowInvalid) else "cannot be read"
        raise RequestError(f"{path} {what}: {error}") from error


def _check_column(path: Path, schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise RequestError(f"{path} has no column {column}")
    if repeated := [name for name, times in Counter(schema.names).items() if times > 1]:
        raise RequestError(f"{path} has several columns {quoted(repeated[0])}: rename them")
    kind = schema.field(column).type
    is_list = any(is_kind(kind) for is_kind in _LISTS)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise RequestError(f"{path}, column {column}: lists of floats are wanted, not {kind!s:.80}")


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind


def _matrix(lists: pa.Array, dimension: int, where: str, rows: np.ndarray) -> Matrix:
    """Vectors as float32 [N, D], of any length: the largest number of each is 1 or -1.

    rows: the number of each in the table. Raises RequestError, which names the first bad row.
    """
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    if (other := np.flatnonzero(lengths != dimension)).size:
        number = other[0]
        raise RequestError(
            f"{where}{rows[number]}: the vector has {lengths[number]} numbers, those before it "
            f"{dimension}"
        )
    if not dimension:
        raise RequestError(f"{where}{rows[0]}: the vector is empty")
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    matrix = values.reshape(-1, dimension)
    for is_bad, reason in (
        (~np.isfinite(matrix).all(axis=1), "holds a number that is missing, NaN or infinite"),
        (~matrix.any(axis=1), "is all zeros, which is no direction"),
    ):
        if is_bad.any():
            raise RequestError(f"{where}{rows[np.argmax(is_bad)]}: the vector {reason}")
    # Squares of large or small numbers would be infinite or zero.
    scaled: Matrix = (matrix / np.abs(matrix).max(axis=1, keepdims=True)).astype(np.float32)
    return scaled
