"""The export for FAISS: unit vectors in NumPy's format, and the rows beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.errors import RequestError
from score.index.build import build_index
from score.index.index import Index
from score.index.npy_export import export_npy
from tests.support import exact_search
from tests.support.exact_search import clustered, nearest, written


def test_inner_products_are_cosines_and_rows_are_in_order(tmp_path: Path) -> None:
    parts = [clustered(5000, 6, 9, seed) for seed in (0, 1)]
    for number, part in enumerate(parts):
        names = pa.array([f"{number}-{n}" for n in range(len(part))]).dictionary_encode()
        extra = {} if number else {"n": [1] * len(part)}
        rows = exact_search.table(part, {"id": names, **extra})
        written(tmp_path / f"in/{number}.parquet", rows)
    assert export_npy(tmp_path / "in", tmp_path / "out") == 10_000
    vectors = np.load(tmp_path / "out/vectors.npy")
    rows = pq.read_table(tmp_path / "out/rows.parquet")
    assert (vectors.dtype, vectors.shape) == (np.float32, (10_000, 6))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert rows.column("id").to_pylist()[4999:5001] == ["0-4999", "1-0"]
    assert rows.column("n").null_count == 5000
    query = clustered(1, 6, 9, seed=2)[0]
    best = np.argsort(-(vectors @ query))[:10].tolist()
    assert best == [n for n, _ in nearest(np.concatenate(parts), query, 10)]


def test_rows_of_vectors_alone_are_numbered(tmp_path: Path) -> None:
    lists = pa.array([[3.0, 4.0], None, [0.0, 1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"image_features": lists}), tmp_path / "in.parquet")
    assert export_npy(tmp_path / "in.parquet", tmp_path / "out") == 2
    assert pq.read_table(tmp_path / "out/rows.parquet").to_pydict() == {"row": [0, 2]}


def test_a_content_counts_once(tmp_path: Path) -> None:
    """And rows are numbered as in an index."""
    for name, first in (("a", 3.0), ("b", 3.0), ("c", 5.0)):
        lists = pa.array([[first, 4.0], None, [0.0, 1.0]], pa.list_(pa.float32()))
        written(tmp_path / f"in/{name}.parquet", pa.table({"image_features": lists}))
    (tmp_path / "in/d.parquet").symlink_to(tmp_path / "in/c.parquet")
    assert export_npy(tmp_path / "in", tmp_path / "out") == 4
    assert len(np.load(tmp_path / "out/vectors.npy")) == 4
    assert build_index(tmp_path / "in", tmp_path / "index") == 4
    hits = Index(tmp_path / "index").search(np.ones(2, np.float32))
    rows = pq.read_table(tmp_path / "out/rows.parquet").to_pydict()
    assert rows == {"row": sorted(hit.row["row"] for hit in hits)} == {"row": [0, 2, 3, 5]}


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    lists = pa.array([[3.0, 4.0], [0.0, 0.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"image_features": lists}), tmp_path / "in.parquet")
    with pytest.raises(RequestError, match="row 1: the vector is all zeros"):
        export_npy(tmp_path / "in.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
