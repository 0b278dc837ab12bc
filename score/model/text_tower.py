"""The text tower: token ids in, vectors out.

An architecture says which tokens see each other, and which is pooled (`families.TextPooling`).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from score.folder.architecture import Text
from score.model.heads import BiasedProjection, Head, Projection
from score.model.transformer import Layout, TensorLoader, Tower, last_norm


class TextTower:
    """Token ids [n, t] → vectors [n, k, dimension] of the texts in each row."""

    def __init__(self, take: TensorLoader, config: Text, layout: Layout) -> None:
        embeddings, epsilon = "text_model.embeddings", config.tower.epsilon
        if config.pooling == "first":
            self._tokens = take(f"{embeddings}.word_embeddings.weight")
            self._positions = _typed_positions(take, embeddings).to(self._tokens.dtype)
            dtype, norm = self._tokens.dtype, last_norm("text_model", config.tower.layers)
            tower = Tower(take, "text_model", config.tower, layout, dtype, post_norm=True)
            self._pooling: _Pooling = _FirstTokens(tower)
            self.head: Head = Projection(take, norm, "text_projection", epsilon)
            return
        self._tokens = take(f"{embeddings}.token_embedding.weight")
        self._positions = take(f"{embeddings}.position_embedding.weight")
        dtype = self._tokens.dtype
        tower = Tower(take, "text_model", config.tower, layout, dtype)
        norm = "text_model.final_layer_norm"
        if config.pooling == "last":
            self._pooling = _LastToken(tower, config.context)
            self.head = BiasedProjection(take, norm, "text_model.head", epsilon)
        else:
            self._pooling = _EndTokens(tower)
            self.head = Projection(take, norm, "text_projection", epsilon)

    def encode(self, ids: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """The vectors of texts, as `packing.Packed` describes them, in fp32."""
        return self.head(self.pool(ids, positions, owners, ends))

    def pool(self, ids: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """The pooled tokens of texts [n, k, width], for `head`."""
        x = F.embedding(ids, self._tokens) + F.embedding(positions, self._positions)
        return self._pooling(x, positions, owners, ends)


class _Pooling(Protocol):
    """The layers of a text tower, and how they pool."""

    def __call__(self, x: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """Tokens with their positions [n, t, width] → pooled tokens [n, k, width]."""


class _EndTokens:
    """Each text's end token is pooled; a token sees those of its text up to itself (CLIP)."""

    def __init__(self, tower: Tower) -> None:
        self._tower = tower

    def __call__(self, x: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        index = torch.arange(owners.shape[1], device=owners.device)
        seen = _same(owners) & (index[:, None] >= index)
        return self._tower.pooled(x, ends, _mask(seen, x.dtype))


class _FirstTokens:
    """Each text's first token is pooled; a token sees all of its text (BERT)."""

    def __init__(self, tower: Tower) -> None:
        self._tower = tower

    def __call__(self, x: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        starts = ends - positions.gather(1, ends)  # a text's last token has its length as position
        return self._tower.pooled(x, starts, _mask(_same(owners), x.dtype))


class _LastToken:
    """The last token of a text of `context` tokens is pooled; each token sees all (SigLIP).

    There is one text a row, which begins it; what follows is padding.
    """

    def __init__(self, tower: Tower, context: int) -> None:
        self._tower, self._context = tower, context

    def __call__(self, x: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        return self._tower.pooled(x[:, : self._context], slice(-1, None))


def _typed_positions(take: TensorLoader, embeddings: str) -> Tensor:
    """What is added to a token at each position: its embedding, and that of the first type."""
    positions, types = (
        take(f"{embeddings}.{name}_embeddings.weight", torch.float32)
        for name in ("position", "token_type")
    )
    return positions + types[0]


def _same(owners: Tensor) -> Tensor:
    """Which tokens of a row [n, t] are of the same text, [n, t, t]."""
    return owners[:, :, None] == owners[:, None]


def _mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The attention mask: 0 for tokens that are seen [n, t, t], else -∞."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)
