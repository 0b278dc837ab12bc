"""The random generator that drawing and captions share, and a uniform choice from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Random = np.random.Generator
T = TypeVar("T")


def pick(random: Random, among: Sequence[T]) -> T:
    """One of them, each with the same probability."""
    return among[int(random.integers(len(among)))]
