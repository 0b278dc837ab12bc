"""Groups of near-duplicates: the rows that a chain of pairs at or above a cosine connects.

Candidates of pairs: up to `MOST_COMPARED` vectors, and in an index that is searched exactly, every
vector is compared with every other, a block of each at a time. In a larger, approximate one the
nearest neighbours of each vector are looked up, and more of them for a row whose last neighbour is
a near-duplicate, too. Either way a pair counts by its cosine in float64, computed from the vectors
themselves. Vectors that are equal bit for bit are joined first, by their digests: a placeholder
that a shop shows for a hundred thousand missing images costs one comparison.

Never is there a matrix of all rows by all rows: memory is two blocks of vectors, their cosines, and
about 50 bytes a row.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from score.errors import RequestError
from score.index.components import Components
from score.index.lance import LanceTable
from score.type_aliases import Matrix

ROUNDING = 1e-7
"""By so much a cosine may be below the threshold: vectors are kept as float32."""

MOST_COMPARED = 250_000
"""Vectors that are all compared with each other even where the index is approximate: up to about
so many it is not slower than looking up the neighbours of each."""

_DOUBT = 1e-4  # error of a cosine in float32, of up to some thousand numbers
_CHUNK = 2048  # pairs that are compared in float64, and rows that are read, at once
_PAIRS = 2048  # of vectors and their neighbours that are looked up at once
_FIRST_TOP, _MOST_TOP = 8, 1024  # neighbours that are looked up
_PROBES = 32  # groups of the approximate index that are looked into


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of two rows or more, the largest first, of equal ones that whose first row comes
    first.

    places: int64 [M], of the rows in the table; those of a group one after the other, in the
    table's order. sizes: of the groups, int64 [G]. rows: how many the table has.
    """

    places: np.ndarray
    sizes: np.ndarray
    rows: int

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def left(self) -> int:
        """How many rows remain if one of each group is kept."""
        return self.rows - len(self.places) + len(self)

    @property
    def numbers(self) -> np.ndarray:
        """The group of each of `places`, int64 [M], from 0."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @property
    def starts(self) -> np.ndarray:
        """Where in `places` each group begins, int64 [G]."""
        starts: np.ndarray = np.cumsum(self.sizes) - self.sizes
        return starts


def check_threshold(threshold: float) -> None:
    """Raises RequestError unless it is above 0, and 1 at most."""
    if not (isinstance(threshold, int | float) and 0 < threshold <= 1):
        raise RequestError(
            f"the threshold must be a cosine above 0, and 1 at most, not {threshold}"
        )


def find_groups(table: LanceTable, threshold: float, trained: int = 0) -> Groups:
    """The groups of a table's near-duplicates.

    trained: the number of vectors that its approximate index was trained on; 0: all are compared.
    Raises RequestError for a threshold outside (0, 1], and a table without rows.
    """
    check_threshold(threshold)
    ids, firsts = _scanned(table)
    components = Components(len(ids))
    components.join(np.arange(len(ids)), firsts)
    is_distinct = firsts == np.arange(len(ids))
    joiner = _Joiner(components, threshold - ROUNDING)
    if trained and is_distinct.sum() > MOST_COMPARED:
        _join_neighbours(table, ids, is_distinct, joiner, trained)
    else:
        _join_all(table, is_distinct, joiner)
    return _groups(components.roots(np.arange(len(ids))))


def with_cosines(
    table: LanceTable, groups: Groups, most: int | None = None, most_rows: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, pa.RecordBatch]]:
    """The rows of groups, in batches: the number of each row's group, from 0; its cosine with the
    group's first row, float64; and its columns.

    most, most_rows: of the first so many groups, so many rows of each; by default all. Raises
    RequestError.
    """
    numbers, starts = groups.numbers, groups.starts
    within = np.arange(len(numbers)) - starts[numbers]
    wanted = (numbers < (most or len(groups))) & (within < (most_rows or len(numbers)))
    chosen = np.flatnonzero(wanted)
    for start in range(0, len(chosen), _CHUNK):
        chunk = chosen[start : start + _CHUNK]
        places = groups.places[chunk]
        own = table.vectors_at(places)
        firsts = table.vectors_at(groups.places[starts[numbers[chunk]]])
        yield numbers[chunk], cosines(own, firsts), table.rows_at(places)


def cosines(ones: Matrix, others: Matrix) -> np.ndarray:
    """Of vectors [N, D] with those at the same places, float64 [N]."""
    one, other = ones.astype(np.float64), others.astype(np.float64)
    products = np.einsum("ij,ij->i", one, other)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    similar: np.ndarray = np.clip(products / lengths, -1, 1)
    return similar


def _scanned(table: LanceTable) -> tuple[np.ndarray, np.ndarray]:
    """The rows' ids, and of each row the place of the first one with the same vector."""
    ids: list[np.ndarray] = []
    digests = bytearray()
    for batch, vectors in table.vectors():
        ids.append(batch)
        for vector in vectors:
            digests += hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
    if not ids:
        raise RequestError("the index holds no vectors")
    pairs = np.frombuffer(bytes(digests), np.uint64).reshape(-1, 2)
    _, firsts, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    return np.concatenate(ids), firsts[inverse.reshape(-1)]


class _Joiner:
    """Joins rows whose cosine is high enough."""

    def __init__(self, components: Components, least: float) -> None:
        self.components, self.least = components, least

    def join(self, ones: np.ndarray, left: Matrix, others: np.ndarray, right: Matrix) -> np.ndarray:
        """ones, others: places of rows, whose vectors are `left` and `right`. Returns their
        cosines, float64."""
        similar = np.empty(len(ones))
        for start in range(0, len(ones), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            similar[chunk] = cosines(left[chunk], right[chunk])
        is_near = similar >= self.least
        self.components.join(ones[is_near], others[is_near])
        return similar

    def join_blocks(
        self, ones: np.ndarray, left: Matrix, others: np.ndarray, right: Matrix
    ) -> None:
        """Joins rows of one block with rows of another. Pairs that are joined already, by way of
        others, need no comparison."""
        is_near = left @ right.T >= self.least - _DOUBT
        if not is_near.any():
            return
        roots, other_roots = self.components.roots(ones), self.components.roots(others)
        is_near &= roots[:, None] != other_roots[None, :]
        rows, columns = np.nonzero(is_near)
        for start in range(0, len(rows), _CHUNK):
            row, column = rows[start : start + _CHUNK], columns[start : start + _CHUNK]
            apart = self.components.roots(ones[row]) != self.components.roots(others[column])
            row, column = row[apart], column[apart]
            self.join(ones[row], left[row], others[column], right[column])


def _join_all(table: LanceTable, is_wanted: np.ndarray, joiner: _Joiner) -> None:
    """Compares each wanted row with all wanted rows after it, for which the table is read again
    from each block on."""
    for ones, left in _blocks(table, is_wanted):
        for others, right in _blocks(table, is_wanted, int(ones[0])):
            joiner.join_blocks(ones, left, others, right)


def _blocks(
    table: LanceTable, is_wanted: np.ndarray, start: int = 0
) -> Iterator[tuple[np.ndarray, Matrix]]:
    """The wanted rows' places and vectors, in batches, from a place on."""
    for _, vectors in table.vectors(start):
        wanted = is_wanted[start : start + len(vectors)]
        if wanted.any():
            yield start + np.flatnonzero(wanted), vectors[wanted]
        start += len(vectors)


def _join_neighbours(
    table: LanceTable, ids: np.ndarray, is_wanted: np.ndarray, joiner: _Joiner, trained: int
) -> None:
    """Compares each wanted row with its neighbours."""
    probes = min(_PROBES, math.isqrt(trained))

    def compare(places: np.ndarray, vectors: Matrix, top: int) -> None:
        """With `top` of them, and with more where the farthest of these is near enough."""
        step = max(1, _PAIRS // top)
        for start in range(0, len(places), step):
            left, left_vectors = places[start : start + step], vectors[start : start + step]
            numbers, found, near = table.neighbours(left_vectors, min(top, len(ids)), probes)
            others = np.searchsorted(ids, found)
            similar = joiner.join(left[numbers], left_vectors[numbers], others, near)
            farthest = np.full(len(left), np.inf)
            np.minimum.at(farthest, numbers, similar)
            counts = np.bincount(numbers, minlength=len(left))
            is_full = (farthest >= joiner.least) & (counts >= top)
            if top < _MOST_TOP and is_full.any():
                compare(left[is_full], left_vectors[is_full], 4 * top)

    for places, vectors in _blocks(table, is_wanted):
        compare(places, vectors, _FIRST_TOP)


def _groups(roots: np.ndarray) -> Groups:
    """roots: of each row the first one of its component."""
    order = np.argsort(roots, kind="stable")
    firsts, starts, sizes = np.unique(roots[order], return_index=True, return_counts=True)
    chosen = np.flatnonzero(sizes > 1)
    chosen = chosen[np.lexsort((firsts[chosen], -sizes[chosen]))]
    parts = [order[starts[group] : starts[group] + sizes[group]] for group in chosen]
    places = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return Groups(places, sizes[chosen], len(roots))
