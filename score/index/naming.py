"""Names of clusters: the texts of a vocabulary that are nearest to a centre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from score.model.zeroshot import unit
from score.type_aliases import Matrix


def names_of(
    centres: Matrix, vocabulary: Sequence[str], vectors: Matrix, count: int = 3
) -> list[tuple[str, ...]]:
    """Of each centre the nearest texts, the nearest first.

    centres: [K, D]; vectors: of the vocabulary, [V, D]; both of any length.
    """
    cosines = unit(centres) @ unit(vectors).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [tuple(vocabulary[place] for place in places) for places in order]
