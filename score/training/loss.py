"""The two losses: CLIP's contrastive one, and classification by learned proxies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(images: Tensor, texts: Tensor, unclear: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE, both ways: the loss of unit vectors (N × D each) that belong together by row.

    `unclear` (N × N bool): pairs of an image and a text that count neither as right nor as wrong.
    `scale`: the temperature's inverse.
    """
    logits = (scale * images @ texts.T).masked_fill(unclear, -torch.inf)
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def classify(
    vectors: Tensor, targets: Tensor, also: Tensor, proxies: Tensor, scale: Tensor
) -> Tensor:
    """Cross-entropy of unit vectors (N × D) against one learned vector of each pictogram (P × D).

    A batch holds few negatives; the proxies are all of them (Movshovitz-Attias et al., 2017,
    https://arxiv.org/abs/1703.07464). `targets` (N): the right pictograms. `also` (N × P bool):
    pictograms that count neither as right nor as wrong.
    """
    logits = scale * vectors @ F.normalize(proxies, dim=-1).T
    others = also.scatter(1, targets[:, None], False)
    return F.cross_entropy(logits.masked_fill(others, -torch.inf), targets)
