"""What is in a job's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from score.job_folder.ledger import Entry, in_order, read


def content(folder: Path) -> pa.Table:
    """All rows of a job."""
    files = sorted((folder / "shards").iterdir())
    return pa.concat_tables(
        [pq.read_table(file, page_checksum_verification=True) for file in files]
    )


def entries(folder: Path) -> list[Entry]:
    return list(in_order({entry.first: entry for entry in read(folder)}))


def assert_same(one: pa.Table, other: pa.Table) -> None:
    """Equal rows; vectors as other batches compute them."""
    assert one.schema.equals(other.schema, check_metadata=True)
    for name in one.column_names:
        if not name.endswith("_features"):
            assert one[name].to_pylist() == other[name].to_pylist(), name
            continue
        for left, right in zip(one[name].to_pylist(), other[name].to_pylist(), strict=True):
            assert (left is None) == (right is None)
            if left is not None:
                np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)
