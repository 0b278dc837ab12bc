"""Indexes in temporary folders, and ones that `build_index` would not write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from score.index import lance
from score.index.build import build_index
from score.index.lance import LanceTable
from score.index.ledger import Ledger, Source
from score.index.origin import Origin
from tests.support import exact_search


def indexed(
    folder: Path,
    vectors: np.ndarray,
    columns: Mapping[str, Any] | None = None,
    fingerprint: str = "",
    name: str = "clip",
) -> Path:
    """An index of vectors [N, D], with `id` or other columns beside them."""
    rows = exact_search.table(
        vectors.astype(np.float32), columns or {"id": range(len(vectors))}, fingerprint, name
    )
    build_index(exact_search.written(folder / "in.parquet", rows), folder / "index")
    return folder / "index"


def unchecked(folder: Path, vectors: list[list[float] | None], dimension: int = 2) -> Path:
    """An index of vectors that have not been checked, or of none."""
    index = folder / "unchecked"
    index.mkdir()
    schema = lance.stored(pa.schema([("id", pa.int64())]), "image_features", dimension)
    table = LanceTable.create(index, schema)
    if vectors:
        arrays = [pa.array(range(len(vectors))), pa.array(vectors, schema.field(1).type)]
        table._table.add(pa.table(arrays, schema=schema))
    source = Source("in.parquet", 1, 1, "0" * 64, len(vectors), len(vectors))
    ledger = Ledger(table.version, "image_features", dimension, Origin(), 0, (source,))
    ledger.write(index)
    return index
