"""CLIP's two towers: pixels or token ids in, projected vectors out.

The arithmetic is that of transformers' `CLIPModel` and `MetaClip2Model`. Three savings change
nothing but the time: queries, keys and values come from one multiplication; the patches from
another, since a convolution whose stride is its width is one; and in the last layer only the token
that is pooled goes on.

Knows tensors; knows nothing of folders, devices or batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from score.architecture import Text, Transformer, Vision

Take = Callable[[str], Tensor]
"""Hands over a tensor by its name."""


class Affine(NamedTuple):
    """Weight and bias of a linear layer or a norm."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """One residual block: attention, then a perceptron, each behind its norm."""

    norm1: Affine
    qkv: Affine
    out: Affine
    norm2: Affine
    fc1: Affine
    fc2: Affine


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x): the activation of OpenAI's CLIP, MetaCLIP and some of MetaCLIP-2."""
    return torch.sigmoid(1.702 * x).mul_(x)


class Tower:
    """The transformer that both towers are."""

    def __init__(self, take: Take, prefix: str, made: Transformer) -> None:
        self._heads = made.heads
        self._eps = made.epsilon
        self._activation = quick_gelu if made.activation == "quick_gelu" else F.gelu
        self._layers = [
            _layer(take, f"{prefix}.encoder.layers.{number}") for number in range(made.layers)
        ]

    def pooled(self, x: Tensor, at: Tensor | None) -> Tensor:
        """Tokens [n, t, width] → the pooled token of each, [n, width].

        `at`: where it stands, [n], for a causal tower; None for the first token of one that sees
        all.
        """
        for layer in self._layers[:-1]:
            x = self._block(layer, x, x, causal=at is not None)
        if at is None:
            return self._block(self._layers[-1], x, x[:, :1])[:, 0]
        chosen = x[torch.arange(len(x), device=x.device), at][:, None]
        seen = torch.arange(x.shape[1], device=x.device) <= at[:, None]
        return self._block(self._layers[-1], x, chosen, mask=seen[:, None, None])[:, 0]

    def norm(self, x: Tensor, affine: Affine) -> Tensor:
        """Layer norm over the last axis."""
        return F.layer_norm(x, x.shape[-1:], *affine, self._eps)

    def _block(
        self,
        layer: Layer,
        x: Tensor,
        asking: Tensor,
        *,
        causal: bool = False,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The tokens `asking`, all of `x` or some, after attention over `x` and the perceptron."""
        normed = self.norm(x, layer.norm1)
        if asking is x:
            q, k, v = F.linear(normed, *layer.qkv).chunk(3, dim=-1)
        else:
            width = x.shape[-1]
            q = F.linear(
                self.norm(asking, layer.norm1), layer.qkv.weight[:width], layer.qkv.bias[:width]
            )
            k, v = F.linear(normed, layer.qkv.weight[width:], layer.qkv.bias[width:]).chunk(2, -1)
        q, k, v = (self._split(part) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        y = asking + F.linear(attended.transpose(1, 2).flatten(2), *layer.out)
        hidden = self._activation(F.linear(self.norm(y, layer.norm2), *layer.fc1))
        return y + F.linear(hidden, *layer.fc2)

    def _split(self, x: Tensor) -> Tensor:
        """[n, t, width] → [n, heads, t, width / heads]."""
        n, t, _ = x.shape
        return x.reshape(n, t, self._heads, -1).transpose(1, 2)


class ImageTower:
    """Normalised pixels [n, 3, height, width] → vectors [n, dimension]."""

    def __init__(self, take: Take, made: Vision) -> None:
        embeddings = "vision_model.embeddings"
        patch = take(f"{embeddings}.patch_embedding.weight")
        self._side = made.patch
        self._patch = patch.flatten(1)
        self._class = take(f"{embeddings}.class_embedding")
        self._positions = take(f"{embeddings}.position_embedding.weight")
        self._pre = _affine(take, "vision_model.pre_layrnorm")  # so spelled in every checkpoint
        self._post = _affine(take, "vision_model.post_layernorm")
        self._projection = take("visual_projection.weight")
        self._tower = Tower(take, "vision_model", made.tower)

    def encode(self, pixels: Tensor) -> Tensor:
        """The vectors of normalised pixels."""
        side = self._side
        n, channels, height, width = pixels.shape
        rows, columns = height // side, width // side
        whole = pixels[..., : rows * side, : columns * side]
        squares = whole.reshape(n, channels, rows, side, columns, side)
        patches = squares.permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, -1)
        tokens = F.linear(patches, self._patch)
        first = self._class.expand(len(tokens), 1, -1)
        x = torch.cat([first, tokens], dim=1) + self._positions
        pooled = self._tower.pooled(self._tower.norm(x, self._pre), at=None)
        return F.linear(self._tower.norm(pooled, self._post), self._projection)


class TextTower:
    """Token ids [n, t] → vectors [n, dimension].

    Pools at the first end token, or, as CLIP's first configs mean by `eos_token_id` 2, at the
    largest id. What stands behind that token is never looked at.
    """

    def __init__(self, take: Take, made: Text, *, largest: bool) -> None:
        """`largest`: pool at the largest id, `Architecture.pools_largest`."""
        embeddings = "text_model.embeddings"
        self._end = None if largest else made.end
        self._tokens = take(f"{embeddings}.token_embedding.weight")
        self._positions = take(f"{embeddings}.position_embedding.weight")
        self._norm = _affine(take, "text_model.final_layer_norm")
        self._projection = take("text_projection.weight")
        self._tower = Tower(take, "text_model", made.tower)

    def encode(self, ids: Tensor) -> Tensor:
        """The vectors of token ids, filled up behind their end token to one length."""
        ends = (ids if self._end is None else (ids == self._end).int()).argmax(dim=-1)
        x = F.embedding(ids, self._tokens) + self._positions[: ids.shape[-1]]
        pooled = self._tower.pooled(x, at=ends)
        return F.linear(self._tower.norm(pooled, self._norm), self._projection)


def _layer(take: Take, prefix: str) -> Layer:
    qkv = [_affine(take, f"{prefix}.self_attn.{part}_proj") for part in ("q", "k", "v")]
    return Layer(
        norm1=_affine(take, f"{prefix}.layer_norm1"),
        qkv=Affine(*(torch.cat(parts) for parts in zip(*qkv, strict=True))),
        out=_affine(take, f"{prefix}.self_attn.out_proj"),
        norm2=_affine(take, f"{prefix}.layer_norm2"),
        fc1=_affine(take, f"{prefix}.mlp.fc1"),
        fc2=_affine(take, f"{prefix}.mlp.fc2"),
    )


def _affine(take: Take, prefix: str) -> Affine:
    return Affine(take(f"{prefix}.weight"), take(f"{prefix}.bias"))
