"""Images that a job has more than once, in memory that does not grow with the number of rows.

Up to `_MOST` different images all are counted, exactly. Beyond that

- how many different images there are is estimated: of all hashes only those below a bound are
  kept, and the bound is halved whenever there are too many. Hashes are evenly spread, so what is
  kept tells of all, within a thousandth or so;
- the largest groups of copies are found by the method of Misra and Gries: when there are too many
  groups, all are made smaller by the size of the median one, and those that are empty then are
  forgotten. So a group is never counted too large, and too small by what was taken away at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST = 2**20  # hashes that are kept
_ALL = 2**64

_Keys = NDArray[np.uint64]
_Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Copies:
    """Images with equal bytes.

    key: how their hash begins, in hexadecimal. rows: how many there are, at least. first: the
    number of the first row that has it, of those that were looked at.
    """

    key: str
    rows: int
    first: int


class CopyCounter:
    """Counts images by the hashes of their bytes. rows: images that were counted."""

    def __init__(self, most: int = _MOST) -> None:
        self._most, self.rows = most, 0
        self._bound = _ALL
        self._below = np.empty(0, np.uint64)
        self._keys = np.empty(0, np.uint64)
        self._counts, self._firsts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._taken = 0
        self._waiting: list[tuple[_Keys, _Numbers]] = []
        self._are_waiting = 0

    def add(self, keys: _Keys, rows: _Numbers) -> None:
        """Counts images. keys: the first eight bytes of their hashes (uint64). rows: the numbers of
        their rows."""
        self.rows += len(keys)
        self._waiting.append((keys, rows))
        self._are_waiting += len(keys)
        if self._are_waiting >= self._most:
            self._merge()

    @property
    def is_exact(self) -> bool:
        """Whether every image was counted."""
        self._merge()
        return self._bound == _ALL

    @property
    def different(self) -> int:
        """How many different images there are; an estimate unless it `is_exact`."""
        self._merge()
        return round(len(self._below) * (_ALL / self._bound))

    @property
    def copies(self) -> int:
        """How many images are a copy of another one; an estimate unless it `is_exact`."""
        return max(self.rows - self.different, 0)

    @property
    def undercount(self) -> int:
        """How much larger a group may be than it is told."""
        self._merge()
        return self._taken

    def largest(self, count: int) -> list[Copies]:
        """The largest groups of copies, the largest first."""
        self._merge()
        order = np.lexsort((self._firsts, -self._counts))[:count]
        return [
            Copies(f"{int(self._keys[at]):016x}", int(self._counts[at]), int(self._firsts[at]))
            for at in order
            if self._counts[at] > 1
        ]

    def _merge(self) -> None:
        if not self._waiting:
            return
        keys = np.concatenate([keys for keys, _ in self._waiting])
        rows = np.concatenate([rows for _, rows in self._waiting])
        self._waiting, self._are_waiting = [], 0
        self._sample(keys)
        self._group(keys, rows)

    def _sample(self, keys: _Keys) -> None:
        kept = np.union1d(self._below, keys[keys <= np.uint64(self._bound - 1)])
        while len(kept) > self._most:
            self._bound //= 2
            kept = kept[kept <= np.uint64(self._bound - 1)]
        self._below = kept

    def _group(self, keys: _Keys, rows: _Numbers) -> None:
        keys = np.concatenate([self._keys, keys])
        order = np.argsort(keys, kind="stable")
        self._keys, begins = np.unique(keys[order], return_index=True)
        counts = np.concatenate([self._counts, np.ones(len(rows), np.int64)])[order]
        self._counts = np.add.reduceat(counts, begins)
        self._firsts = np.minimum.reduceat(np.concatenate([self._firsts, rows])[order], begins)
        if len(self._keys) > self._most:
            half = len(self._keys) - self._most // 2
            taken = int(np.partition(self._counts, half)[half])
            self._taken += taken
            kept = self._counts > taken
            self._keys, self._firsts = self._keys[kept], self._firsts[kept]
            self._counts = self._counts[kept] - taken
