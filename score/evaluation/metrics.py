"""Ranks, accuracies and recalls. Arrays in, numbers out.

The definitions are those of open_clip (`zero_shot.py`) and CLIP_benchmark
(`zeroshot_classification.py`, `zeroshot_retrieval.py`).

Ties: of items with the same score the first in order ranks first, and one with a NaN score last, so
that a model whose scores are all equal does not get a perfect rank. PyTorch's `topk`, which those
programs use, leaves the order of ties undefined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from score.type_aliases import Matrix

Integers = npt.NDArray[np.intp]

TOP = (1, 5)
RECALL_AT = (1, 5, 10)

_SCORES_AT_ONCE = 2**22  # 16 MiB of float32, and as much again for each comparison


def ranks(scores: Matrix, targets: Integers) -> Integers:
    """The rank of each query's target: [queries], from 0, the number of items ahead of it.

    `scores` [queries, items]; `targets` [queries] are item numbers.
    """
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    # Counts the items behind: comparisons with NaN are false, so nothing is behind a NaN.
    behind = (scores < own).sum(axis=1)
    later = np.arange(scores.shape[1]) > targets[:, None]
    behind += ((scores == own) & later).sum(axis=1)
    ahead: Integers = scores.shape[1] - 1 - behind
    return ahead


def share_within(ranking: Integers, k: int) -> float | None:
    """The share of ranks that are among the first `k`; None where there are none."""
    return float((ranking < k).mean()) if len(ranking) else None


# -- zero-shot ---------------------------------------------------------------------------------


class Tally:
    """Counts predictions. Memory grows with the classes, not the images."""

    def __init__(self, classes: int) -> None:
        self.images = np.zeros(classes, dtype=np.intp)
        """[classes] The images of each class."""
        self.right = {k: np.zeros(classes, dtype=np.intp) for k in TOP}
        """k → [classes] The images whose class is among the k most probable."""
        self.mistakes: Counter[tuple[int, int]] = Counter()
        """(true, predicted) → images; without right predictions."""

    def add(self, scores: Matrix, targets: Integers) -> None:
        """`scores` [images, classes] of any scale, `targets` [images] the true classes."""
        np.add.at(self.images, targets, 1)
        ranking = ranks(scores, targets)
        for k, right in self.right.items():
            np.add.at(right, targets[ranking < k], 1)
        wrong = ranking > 0
        predicted = scores[wrong].argmax(axis=1)
        self.mistakes.update(zip(targets[wrong].tolist(), predicted.tolist(), strict=True))

    def accuracy(self, k: int) -> float | None:
        """The share of images whose class is among the `k` most probable; None without any."""
        total = int(self.images.sum())
        return int(self.right[k].sum()) / total if total else None

    def recall(self) -> list[float | None]:
        """Each class's share of images predicted right; None for one without images."""
        pairs = zip(self.right[1].tolist(), self.images.tolist(), strict=True)
        return [right / total if total else None for right, total in pairs]

    def mean_recall(self) -> float | None:
        """The mean of `recall` over the classes that have images (balanced accuracy)."""
        known = [recall for recall in self.recall() if recall is not None]
        return sum(known) / len(known) if known else None


# -- retrieval ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """Which image each caption describes.

    text: [captions] the number of the caption's text among the distinct texts.
    image: [captions] the number of its image.
    """

    text: Integers
    image: Integers

    def __len__(self) -> int:
        return len(self.text)


def ranks_of_images(
    texts: Matrix, images: Matrix, captions: Captions, at_once: int = _SCORES_AT_ONCE
) -> Integers:
    """Text → image: the rank of each caption's image, [captions].

    `texts` [distinct texts, dimension] and `images` [images, dimension] are unit vectors; at most
    `at_once` scores are held at a time, but always those of one query.
    """
    ranking = np.empty(len(captions), dtype=np.intp)
    for part in _blocks(len(captions), len(images), at_once):
        ranking[part] = ranks(texts[captions.text[part]] @ images.T, captions.image[part])
    return ranking


def ranks_of_texts(
    texts: Matrix, images: Matrix, captions: Captions, at_once: int = _SCORES_AT_ONCE
) -> Integers:
    """Image → text: the best rank among each image's captions, [images].

    Each caption is an item of its own, also where another image's has the same words: those two
    tie. Every image needs a caption. The rest as in `ranks_of_images`.
    """
    own = _captions_of(captions, len(images))
    ranking = np.empty(len(images), dtype=np.intp)
    for part in _blocks(len(images), len(captions), at_once):
        # Scored once a distinct text, then repeated: equal texts have exactly equal scores.
        scores = (images[part] @ texts.T)[:, captions.text]
        best = [c[row[c].argmax()] for row, c in zip(scores, own[part], strict=True)]
        ranking[part] = ranks(scores, np.array(best, dtype=np.intp))
    return ranking


def _captions_of(captions: Captions, images: int) -> list[Integers]:
    order = np.argsort(captions.image, kind="stable")
    return np.split(order, np.cumsum(np.bincount(captions.image, minlength=images))[:-1])


def _blocks(queries: int, items: int, at_once: int) -> Iterator[slice]:
    step = max(1, at_once // max(items, 1))
    yield from (slice(start, start + step) for start in range(0, queries, step))


def recalls(ranking: Integers, at: Sequence[int] = RECALL_AT) -> dict[int, float | None]:
    """R@k for each k: a hit if any right item is among the first k."""
    return {k: share_within(ranking, k) for k in at}
