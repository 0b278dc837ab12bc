"""Passes that do not fit in memory are divided until they do."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from score.core.batching import Compute
from score.errors import OutOfMemory
from score.hardware.out_of_memory import is_out_of_memory
from score.type_aliases import Matrix

log = logging.getLogger(__name__)

_REMEMBERED = 60.0  # seconds after which passes of the whole size are tried again

_now = time.monotonic


class Halving:
    """A `Compute` that halves a pass that does not fit, and keeps to the smaller size for a while.

    For one thread at a time.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._most, self._until = math.inf, 0.0  # inputs of a pass, as long as it is remembered

    def __call__(self, inputs: Sequence[Any]) -> Matrix:
        """Raises OutOfMemory for an input that does not fit alone, and what `compute` raises."""
        if _now() >= self._until:
            self._most = math.inf
        if len(inputs) <= self._most:
            vectors = self._tried(inputs)
            if vectors is not None:
                return vectors
            self._shrink(len(inputs))
        step = int(self._most)
        parts = [inputs[at : at + step] for at in range(0, len(inputs), step)]
        return np.concatenate([self(part) for part in parts])

    def _tried(self, inputs: Sequence[Any]) -> Matrix | None:
        """Their vectors; None where memory is lacking, and the failed pass's is free again."""
        try:
            return self._compute(inputs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback keeps the pass's tensors alive.
        return None

    def _shrink(self, size: int) -> None:
        if size <= 1:
            raise OutOfMemory("a single input does not fit in the memory that is free")
        self._most, self._until = size // 2, _now() + _REMEMBERED
        log.warning(
            "a pass of %d inputs does not fit in memory; now %d at a time", size, self._most
        )
