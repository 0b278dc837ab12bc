"""Parquet files of a long job: some of its rows, each with its number in the job's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from score.contract.rows import ERRORS, FEATURES, Record
from score.tables.base_writer import SHA256, STATUS, Output, error_cells, vectors_of
from score.tables.column_types import stored_as
from score.tables.lines import ALL_TEXT, Types
from score.tables.parquet_writer import Rows
from score.type_aliases import VectorType

ROW = "row_id"
COMPUTED = (*FEATURES, STATUS, *ERRORS, SHA256)
"""The columns of `computed`; a shard has its rows' numbers and the input's columns before them."""
OK, FAILED = "ok", "failed"
IMAGE_COLUMN = "score.image_column"
"""Key of a shard's metadata: what the input calls its column of images, where not `image`."""


class ShardWriter(Output):
    """Parquet: the row's number, the input's columns, vectors as lists, whether the row failed and
    how, and the hash of the image's bytes."""

    reserved = (ROW, *COMPUTED)
    says_about = True

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        dimension: int,
        about: Mapping[str, str] = MappingProxyType({}),
        types: Types = ALL_TEXT,
        *,
        vectors: VectorType = "float32",
    ) -> None:
        """As `Output`; `vectors`: the type of their numbers."""
        self._kind = np.dtype(vectors)
        super().__init__(path, columns, dimension, about, types)

    @override
    def _open(self, *parts: Path) -> None:
        schema = schema_of(self.columns, self._kind, self.about, self.types)
        (part,) = parts
        self._rows = Rows(part, schema)

    def write(
        self, number: int, kept: Sequence[object], record: Record, sha256: str | None
    ) -> None:
        """Adds a record beside the cells that it came with. number: of the row in the input.
        sha256: of the image's bytes, if there were any."""
        cells = self._cells(kept)
        self._rows.add((number, *cells, *computed(record, sha256, self._kind)), cells)

    @override
    def _close(self) -> None:
        self._rows.close()


def computed(record: Record, sha256: str | None, kind: np.dtype[Any]) -> tuple[object, ...]:
    """The cells of `COMPUTED`. kind: of the vectors' numbers."""
    vectors = [
        None if vector is None else vector.astype(kind, copy=False) for vector in vectors_of(record)
    ]
    return *vectors, FAILED if record.error else OK, *error_cells(record), sha256


def schema_of(
    columns: Sequence[str], kind: np.dtype[Any], about: Mapping[str, str], types: Types = ALL_TEXT
) -> pa.Schema:
    """The columns of a shard. kind: of the vectors' numbers. about: which model made them.
    types: of the input's columns.

    The lists are of no fixed size: pyarrow cannot read a missing one of those that it wrote
    ("Expected all lists to be of size=512 but index 2 had size=0", 18.0 to 25.0 at least).
    """
    text, vector = pa.string(), pa.list_(pa.from_numpy_dtype(kind))
    fields = [
        (ROW, pa.int64()),
        *((name, stored_as(name, types)) for name in columns),
        *((name, vector) for name in FEATURES),
        (STATUS, text),
        *zip(ERRORS, (text, text, pa.bool_()), strict=True),
        (SHA256, text),
    ]
    return pa.schema(fields, metadata=dict(about) or None)
