"""Tables of vectors → `vectors.npy` and `rows.parquet`, for FAISS and other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from score.index.build import files_of, is_index, opened
from score.index.ledger import Ledger
from score.index.vector_table import VectorTable
from score.storage import atomic
from score.storage.outputs import check_folder
from score.type_aliases import FeatureColumn

VECTORS, ROWS = "vectors.npy", "rows.parquet"


def export_npy(
    table: str | Path | Sequence[str | Path],
    folder: str | Path,
    column: FeatureColumn = "image_features",
    *,
    overwrite: bool = False,
) -> int:
    """Writes the vectors of parquet files as NumPy's format; returns their number.

    `vectors.npy`: float32 [N, D], unit vectors, so that inner products are cosines. `rows.parquet`:
    the other columns, N rows in the same order. The arguments and errors are `build_index`'s.
    """
    files, folder = files_of(table), Path(folder)
    check_folder(folder, is_index, overwrite=overwrite, inputs=files)
    content = opened(files, column)
    sources = Ledger(0, column, content.dimension, content.origin).changes(files).new
    by_path = {str(table.path.resolve()): table for table in content.tables}
    tables = [by_path[source.path] for source in sources]
    count = _count(tables)
    with atomic.contents(folder) as new:
        vectors = open_memmap(new / VECTORS, "w+", np.float32, (count, content.dimension))
        start = first = 0
        with pq.ParquetWriter(new / ROWS, content.columns) as writer:
            for source in tables:
                for batch, matrix in source.batches(first):
                    vectors[start : start + len(matrix)] = matrix
                    start += len(matrix)
                    writer.write_batch(source.conformed(batch, content.columns))
                first += source.size
        vectors.flush()
    return count


def _count(tables: Sequence[VectorTable]) -> int:
    return sum(table.extent()[0] for table in tables)
