"""Connected components: which of N things are joined, directly or by way of others."""

from __future__ import annotations

import numpy as np


class Components:
    """Of things that are numbered from 0, at first each for itself. A component's root is the
    smallest number in it. Memory: 8 bytes a thing."""

    def __init__(self, count: int) -> None:
        self._above = np.arange(count)

    def roots(self, things: np.ndarray) -> np.ndarray:
        """The root of each."""
        roots: np.ndarray = self._above[things]
        while not np.array_equal(higher := self._above[roots], roots):
            roots = higher
        return roots

    def join(self, ones: np.ndarray, others: np.ndarray) -> None:
        """Joins each of `ones` with the one of `others` that stands at the same place."""
        pairs = np.stack([self.roots(ones), self.roots(others)], axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
        for one, other in pairs.tolist():
            low, high = sorted((self._root(one), self._root(other)))
            self._above[high] = low

    def _root(self, thing: int) -> int:
        above = self._above
        while (up := int(above[thing])) != thing:
            above[thing] = above[up]  # halves the way for the next one
            thing = up
        return thing
