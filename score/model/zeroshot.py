"""Zero-shot classification with CLIP: label vectors and probabilities, arrays in and arrays out.

The formulas are those of the CLIP paper (Radford et al. 2021, section 3.1) and of openai/CLIP's
notebook: a label's vector is the mean of its prompts' unit vectors, normalised again; an
image's probabilities are the softmax of its cosines with them, times the checkpoint's own
temperature. SigLIP's (Zhai et al. 2023, section 3.2) are the sigmoid of each scaled cosine and the
checkpoint's bias: each label's by itself. Knows no model and does no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from score.type_aliases import Matrix, Vector

_STEEPEST = 1e300  # a finite scale in place of infinity: softmax becomes argmax


def unit(vectors: Matrix) -> Matrix:
    """Vectors [..., dimension] normalised to unit length; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Matrix = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return scaled


def label_vectors(prompts: Matrix, counts: Sequence[int]) -> Matrix:
    """Unit vectors [labels, dimension] from prompts' vectors [prompts, dimension].

    `counts`: how many prompts, one after the other, belong to each label.
    """
    ends = np.cumsum(counts)
    groups = np.split(unit(prompts), ends[:-1])
    return unit(np.stack([group.mean(axis=0) for group in groups]))


def probabilities(
    images: Matrix, labels: Matrix, scale: float, bias: float | None = None
) -> Matrix:
    """float32 [images, labels]; each row sums to one, unless there is a `bias`.

    `images`: vectors of any length; `labels`: unit vectors; `scale`: exp(logit_scale), which may be
    infinite; `bias`: logit_bias, of models whose labels are judged each by itself.
    """
    cosines = unit(images).astype(np.float64) @ labels.T.astype(np.float64)
    if bias is not None:
        # σ(x) = (1 + tanh(x / 2)) / 2 overflows nowhere.
        logits = cosines * min(scale, _STEEPEST) + bias
        each: Matrix = ((1 + np.tanh(logits / 2)) / 2).astype(np.float32)
        return each
    # The maximum is subtracted before scaling, so that no exponent is positive.
    behind = cosines - cosines.max(axis=1, keepdims=True)
    powers = np.exp(behind * min(scale, _STEEPEST))
    probs: Matrix = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probs


def ranked(
    names: Sequence[str], probs: Vector, least: float
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Labels and their probabilities, the most probable first, without those below `least`."""
    order = np.argsort(-probs, kind="stable")
    kept = order[probs[order] >= least]
    return tuple(names[index] for index in kept), tuple(probs[kept].tolist())


def cosine(a: Vector, b: Vector) -> float:
    """The similarity of two vectors of any length, from -1 to 1."""
    product = unit(a).astype(np.float64) @ unit(b).astype(np.float64)
    return float(np.clip(product, -1, 1))
