"""How fast two engines compute the same inputs on this machine.

They take turns, so that other load on the machine affects both alike; medians leave out the passes
that something disturbed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from score.model.encoder import Encoder
from score.texts.tokenizer import Ids

MARGIN = 1.05
"""How many times as fast batches must be for another engine, so that noise does not decide."""

_SECONDS = 1.5  # for each kind of pass; at least one turn is measured, however long it takes
_MOST_TURNS = 15
_WANTED_TURNS = 5  # of a batch of images
_TEXTS = 64  # in a batch


class Speedup(NamedTuple):
    """The first engine's time over the second's, for single inputs and for batches."""

    one_text: float
    one_image: float
    texts: float
    images: float

    def __str__(self) -> str:
        return ", ".join(
            f"{name.replace('_', ' ')} {ratio:.2f}" for name, ratio in self._asdict().items()
        )

    @property
    def pays(self) -> bool:
        """Whether the second is faster: by `MARGIN` with batches, and not slower with one input."""
        batches, singles = min(self.texts, self.images), min(self.one_text, self.one_image)
        return batches >= MARGIN and singles >= 1


def speedup(first: Encoder, second: Encoder, ids: Sequence[Ids]) -> Speedup:
    """Measures both within some seconds. `ids`: token ids of ordinary texts, at least one.

    A batch of images is as large as time allows, and at most the encoder's batch size.
    """
    encoders = (first, second)
    side = first.architecture.vision.image
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    texts = [ids[number % len(ids)] for number in range(_TEXTS)]

    one_text = _medians([partial(encoder.texts, texts[:1]) for encoder in encoders])
    one_image = _medians([partial(encoder.images, [noise]) for encoder in encoders])
    images = [noise] * _affordable(sum(one_image), first.batch_size)
    batches = (
        _medians([partial(encoder.texts, texts) for encoder in encoders]),
        _medians([partial(encoder.images, images) for encoder in encoders]),
    )
    return Speedup(*(ours / theirs for ours, theirs in (one_text, one_image, *batches)))


def _affordable(seconds: float, most: int) -> int:
    """Images in a batch: a power of two. `seconds`: that both engines take for one."""
    wanted = int(_SECONDS / _WANTED_TURNS / seconds)
    return min(most, 1 << max(0, wanted.bit_length() - 1))


def _medians(passes: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds that each takes, after a first pass, which prepares for the shape of its input."""
    for compute in passes:
        compute()
    seconds: list[list[float]] = [[] for _ in passes]
    end = time.perf_counter() + _SECONDS
    while not seconds[0] or (len(seconds[0]) < _MOST_TURNS and time.perf_counter() < end):
        for compute, taken in zip(passes, seconds, strict=True):
            start = time.perf_counter()
            compute()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]
