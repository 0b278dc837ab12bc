"""Clusters of an index's vectors, by their directions: spherical k-means, and HDBSCAN.

The only module that knows scikit-learn. k-means: `KMeans`, or above `_WHOLE` bytes of vectors
`MiniBatchKMeans` on batches of rows that are drawn at random, finds centres; then rounds over all
vectors move each centre to the mean direction of the vectors nearest to it by cosine, which is
spherical k-means. Memory: at most `_WHOLE` bytes of vectors, some times over, and 12 bytes a row.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from score.errors import RequestError
from score.index.lance import LanceTable
from score.model.zeroshot import unit
from score.type_aliases import Matrix

MOST_CLUSTERS = 4096
MOST_FOR_HDBSCAN = 10_000
"""Rows: HDBSCAN compares most vectors of many numbers with each other."""

_SEED = 0
_WHOLE = 128 * 2**20  # bytes of vectors that k-means gets at once
_STARTS = 3  # of which k-means keeps the best
_DRAWN = 4096  # rows of a batch
_PER_CLUSTER = 20  # and at least so many for each cluster
_MOST_BATCHES = 64
_ROUNDS = 10
_COMPARED = 2**22  # cosines that are computed at once


@dataclass(frozen=True, slots=True)
class Clustering:
    """Clusters, the largest first, of equal ones that whose first row comes first.

    centres: unit vectors, float32 [K, D]. numbers: the cluster of each row of the table, int32 [N],
    from 0; -1: of none. cosines: of each row with its centre, float32 [N]; NaN: of none.
    """

    centres: Matrix
    numbers: np.ndarray
    cosines: np.ndarray

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def sizes(self) -> np.ndarray:
        """How many rows each has, int64 [K]."""
        return np.bincount(self.numbers[self.numbers >= 0], minlength=len(self))

    def nearest(self, cluster: int, count: int | None = None) -> np.ndarray:
        """Places of the rows of a cluster, those nearest to its centre first; int64."""
        places = np.flatnonzero(self.numbers == cluster)
        order = np.lexsort((places, -self.cosines[places]))
        return places[order][:count]


def k_means(table: LanceTable, count: int) -> Clustering:
    """At most `count` clusters: of equal vectors there may be fewer. The same index gives the same
    clusters. Raises RequestError for more clusters than rows."""
    rows = _rows(table)
    if not 0 < count <= MOST_CLUSTERS:
        raise RequestError(f"from 1 to {MOST_CLUSTERS:,} clusters can be made, not {count:,}")
    if count > rows:
        raise RequestError(
            f"{count:,} clusters of {rows:,} {'row' if rows == 1 else 'rows'} cannot be made: ask "
            f"for {rows:,} at most"
        )
    centres = unit(_centres(table, count, rows)).astype(np.float32)
    numbers, cosines, sums = _assigned(table, centres, rows)
    for _ in range(_ROUNDS):
        centres = np.where(sums.any(axis=1, keepdims=True), unit(sums), centres).astype(np.float32)
        before = numbers
        numbers, cosines, sums = _assigned(table, centres, rows)
        if np.array_equal(numbers, before):
            break
    return _sorted(centres, numbers, cosines)


def hdbscan(table: LanceTable, min_size: int) -> Clustering:
    """Clusters of `min_size` rows or more, as many as there are; a row that lies between them is in
    none. Raises RequestError for too many rows, or fewer than `min_size`."""
    rows = _rows(table)
    if min_size < 2:
        raise RequestError(f"a cluster has two rows at least, not {min_size:,}")
    if rows > MOST_FOR_HDBSCAN:
        raise RequestError(
            f"HDBSCAN takes {MOST_FOR_HDBSCAN:,} rows at most, and the index holds {rows:,}: make "
            "clusters by their number, with k-means"
        )
    if rows < min_size:
        raise RequestError(
            f"the index holds {rows:,} {'row' if rows == 1 else 'rows'}: fewer than the "
            f"{min_size:,} of a cluster"
        )
    vectors = _all(table)
    model = HDBSCAN(min_cluster_size=min_size, algorithm="ball_tree", copy=True)
    numbers = model.fit(vectors).labels_.astype(np.int32)
    count = int(numbers.max()) + 1
    sums: np.ndarray = np.zeros((count, vectors.shape[1]))
    _add(sums, numbers[numbers >= 0], vectors[numbers >= 0])
    centres = unit(sums).astype(np.float32)
    cosines = np.full(rows, np.nan, np.float32)
    for start in range(0, rows, _DRAWN):
        of = numbers[start : start + _DRAWN]
        part, own = vectors[start : start + _DRAWN][of >= 0], centres[of[of >= 0]]
        cosines[start : start + _DRAWN][of >= 0] = np.clip(np.einsum("ij,ij->i", part, own), -1, 1)
    return _sorted(centres, numbers, cosines)


def _rows(table: LanceTable) -> int:
    rows = len(table)
    if not rows:
        raise RequestError("the index holds no vectors")
    return rows


def _all(table: LanceTable) -> Matrix:
    width = table.schema.field(table.schema.names[-1]).type.list_size
    whole = np.empty((len(table), width), np.float32)
    start = 0
    for _, vectors in table.vectors():
        whole[start : start + len(vectors)] = vectors
        start += len(vectors)
    return whole


def _centres(table: LanceTable, count: int, rows: int) -> Matrix:
    """Centres [K, D] by scikit-learn, with a fixed seed."""
    with warnings.catch_warnings():
        # Fewer distinct vectors than clusters: the clusters that stay empty are left out.
        warnings.simplefilter("ignore", ConvergenceWarning)
        width = table.schema.field(table.schema.names[-1]).type.list_size
        if rows * width * np.float32().itemsize <= _WHOLE:
            whole = KMeans(count, n_init=_STARTS, random_state=_SEED).fit(_all(table))
            return np.asarray(whole.cluster_centers_)
        batched = MiniBatchKMeans(count, n_init=_STARTS, random_state=_SEED)
        for places in _drawn(rows, max(_DRAWN, _PER_CLUSTER * count)):
            batched.partial_fit(table.vectors_at(places))
        return np.asarray(batched.cluster_centers_)


def _drawn(rows: int, size: int) -> Iterator[np.ndarray]:
    """Places of rows, each once, in batches drawn at random: a table may be sorted."""
    places = np.random.default_rng(_SEED).permutation(rows)
    for start in range(0, min(rows, _MOST_BATCHES * size), size):
        yield places[start : start + size]


def _assigned(
    table: LanceTable, centres: Matrix, rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest centre of each row, its cosine with it, and the sum of each centre's vectors."""
    numbers, cosines = np.empty(rows, np.int32), np.empty(rows, np.float32)
    sums = np.zeros(centres.shape)
    step = max(1, _COMPARED // len(centres))
    start = 0
    for _, batch in table.vectors():
        for first in range(0, len(batch), step):
            vectors = batch[first : first + step]
            products = vectors @ centres.T
            nearest = products.argmax(axis=1)
            part = slice(start, start + len(vectors))
            numbers[part] = nearest
            cosines[part] = np.clip(products[np.arange(len(vectors)), nearest], -1, 1)
            _add(sums, nearest, vectors)
            start += len(vectors)
    return numbers, cosines, sums


def _add(sums: np.ndarray, numbers: np.ndarray, vectors: Matrix) -> None:
    """Adds vectors to the sums of their clusters; `np.add.at` takes many times as long."""
    if len(numbers):
        order = np.argsort(numbers, kind="stable")
        some, starts = np.unique(numbers[order], return_index=True)
        sums[some] += np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)


def _sorted(centres: Matrix, numbers: np.ndarray, cosines: np.ndarray) -> Clustering:
    """Without empty clusters, and in order."""
    some, firsts, sizes = np.unique(numbers[numbers >= 0], return_index=True, return_counts=True)
    order = np.lexsort((firsts, -sizes))
    new = np.full(len(centres) + 1, -1, np.int32)  # the last one is that of -1
    new[some[order]] = np.arange(len(some), dtype=np.int32)
    return Clustering(centres[some[order]], new[numbers], cosines)
