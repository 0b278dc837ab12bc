"""The same image or text is encoded once, where it comes again soon."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from score.concurrency.steps import Steps
from score.images.preprocess import Pixels
from score.type_aliases import Matrix, Vector

_KEPT_FLOATS = 2**20  # of vectors kept for inputs that come again: 4 MiB


Encode = Callable[[Sequence[Any]], Steps[Matrix]]
"""Inputs, at least one → vectors [inputs, dimension]."""


class Deduplicated:
    """An encode function that remembers the vectors of its latest inputs. For one thread."""

    def __init__(self, encode: Encode, dimension: int, key: Callable[[Any], Hashable]) -> None:
        """`key`: equal for inputs that are the same."""
        self._encode, self._key, self._dimension = encode, key, dimension
        self._vectors: dict[Hashable, Vector] = {}
        self._most = _KEPT_FLOATS // dimension

    def vectors(self, inputs: Sequence[Any]) -> Steps[Matrix]:
        """The vector of each input, [inputs, dimension]."""
        keys = [self._key(value) for value in inputs]
        new = {
            key: value for key, value in zip(keys, inputs, strict=True) if key not in self._vectors
        }
        if new:
            encoded = yield from self._encode(list(new.values()))
            self._vectors |= zip(new, encoded, strict=True)
        vectors = [self._vectors[key] for key in keys]
        for key in list(islice(self._vectors, max(0, len(self._vectors) - self._most))):
            del self._vectors[key]
        return np.array(vectors, np.float32).reshape(len(keys), self._dimension)


def digest(pixels: Pixels) -> bytes:
    """16 bytes that are equal for equal images of one size."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()
