"""Which pictograms go into which batch, and who draws the batches."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np

from score.training.config import Config
from score.training.randomness import Random
from score.training.samples import Batch, Samples


class LookAlikes:
    """Batches with hard negatives: pictograms whose vectors are similar come together.

    A pictogram is in at most one batch of an epoch; the rest of an epoch that does not fill a batch
    is dropped. Similarity is the dot product of the last vectors seen of two pictograms.
    """

    def __init__(self, count: int, config: Config) -> None:
        self._config = config
        self._vectors = np.zeros((count, config.architecture.dimension), np.float32)

    def update(self, classes: np.ndarray, vectors: np.ndarray) -> None:
        """Remembers the last vectors (N × D, unit length) of pictograms (N indices)."""
        self._vectors[classes] = vectors

    def epoch(self, first: int) -> list[np.ndarray]:
        """The pictograms of each batch, for the epoch whose first step is `first`."""
        config = self._config
        random = np.random.default_rng((config.seed, 1, first))
        order = random.permutation(len(self._vectors))
        if first >= config.mixed * config.steps:
            order = self._grouped(random, order)
        whole = len(order) // config.batch * config.batch
        return np.split(order[:whole], whole // config.batch)

    def _grouped(self, random: Random, order: np.ndarray) -> np.ndarray:
        """The order in groups: a pictogram, then the most similar ones that are in no group yet."""
        similar = self._vectors @ self._vectors.T
        groups = []
        for one in order:
            if similar[one, one] == -np.inf:  # it is in a group
                continue
            similar[one, one] = np.inf  # first in its own group, even without a vector yet
            group = np.argsort(-similar[one], kind="stable")[: self._config.group]
            group = group[similar[one, group] > -np.inf]
            similar[:, group] = -np.inf
            groups.append(group)
        random.shuffle(groups)
        return np.concatenate(groups)


def batches(samples: Samples, alike: LookAlikes, steps: int, processes: int) -> Iterator[Batch]:
    """The batches of a run. `processes`: how many others draw them; 0 draws them in this one.

    They are drawn an epoch at a time: its hard negatives depend on the model by then, and drawing
    during training would compete for the same cores.
    """
    with _drawers(samples, processes) as draw_all:
        done = 0
        while done < steps:
            epoch = alike.epoch(done)[: steps - done]
            yield from draw_all(range(done, done + len(epoch)), epoch)
            done += len(epoch)


@contextmanager
def _drawers(samples: Samples, processes: int) -> Iterator[Callable[..., Iterable[Batch]]]:
    if not processes:
        yield partial(map, samples.batch)
        return
    context = multiprocessing.get_context("spawn")  # a fork with torch's threads running may hang
    with ProcessPoolExecutor(processes, context, _share, (samples,)) as pool:
        yield lambda *arguments: list(pool.map(_batch, *arguments))


_shared: Samples  # in a drawing process: the glyphs are sent to it only once


def _share(samples: Samples) -> None:
    global _shared
    _shared = samples


def _batch(step: int, classes: np.ndarray) -> Batch:
    return _shared.batch(step, classes)
