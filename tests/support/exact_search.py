"""The reference that searches are compared with: every vector's cosine, computed by NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def clustered(count: int, dimension: int, clusters: int, seed: int = 0) -> np.ndarray:
    """float32 [count, dimension]: points around random centres, of any length."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, dimension))
    noise = 0.5 * random.standard_normal((count, dimension))
    return (centres[random.integers(0, clusters, count)] + noise).astype(np.float32)


def table(
    vectors: np.ndarray, columns: Mapping[str, Any], fingerprint: str = "", name: str = "clip"
) -> pa.Table:
    """Rows of `columns` and `image_features`. fingerprint, name: of the model, as embed says."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    rows = pa.table({**columns, "image_features": lists})
    said = {"score.fingerprint": fingerprint, "score.model": name} if fingerprint else None
    return rows.replace_schema_metadata(said)


def written(file: Path, rows: pa.Table) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, file)
    return file


def nearest(
    vectors: np.ndarray, query: np.ndarray, top: int, allowed: Sequence[bool] | None = None
) -> list[tuple[int, float]]:
    """The `top` rows nearest to a query, by number, with their cosines; only those `allowed`."""
    rows = vectors.astype(np.float64)
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    if allowed is not None:
        cosines[~np.asarray(allowed)] = -np.inf
    order = [n for n in np.argsort(-cosines, kind="stable")[:top] if np.isfinite(cosines[n])]
    return [(int(n), float(cosines[n])) for n in order]
