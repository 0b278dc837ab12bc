"""CLIP's two towers: pixels or token ids in, projected vectors out.

The arithmetic is that of transformers' `CLIPModel` and `MetaClip2Model`. Three savings change
nothing but the time: queries, keys and values come from one multiplication; the patches from
another, since a convolution whose stride is its width is one; and in the last layer only the token
that is pooled goes on.

Knows tensors; knows nothing of folders, devices or batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Activation = Callable[[Tensor], Tensor]


class TowerConfig(Protocol):
    """What a tower reads of `text_config` or `vision_config`."""

    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float


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
    """The transformer that both towers are. Takes its tensors out of `state`."""

    def __init__(
        self, state: State, prefix: str, config: TowerConfig, activation: Activation
    ) -> None:
        self._heads = config.num_attention_heads
        self._eps = config.layer_norm_eps
        self._activation = activation
        self._layers = [
            _layer(state, f"{prefix}.encoder.layers.{number}")
            for number in range(config.num_hidden_layers)
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

    def __init__(self, state: State, config: TowerConfig, activation: Activation) -> None:
        embeddings = "vision_model.embeddings"
        patch = state.pop(f"{embeddings}.patch_embedding.weight")
        self._side = patch.shape[-1]
        self._patch = patch.flatten(1)
        self._class = state.pop(f"{embeddings}.class_embedding")
        self._positions = state.pop(f"{embeddings}.position_embedding.weight")
        self._pre = _affine(state, "vision_model.pre_layrnorm")  # so spelled in every checkpoint
        self._post = _affine(state, "vision_model.post_layernorm")
        self._projection = state.pop("visual_projection.weight")
        self._tower = Tower(state, "vision_model", config, activation)

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return len(self._projection)

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

    def __init__(
        self, state: State, config: TowerConfig, activation: Activation, end: int | None
    ) -> None:
        """`end`: the end token's id; None to pool at the largest id."""
        embeddings = "text_model.embeddings"
        self._end = end
        self._tokens = state.pop(f"{embeddings}.token_embedding.weight")
        self._positions = state.pop(f"{embeddings}.position_embedding.weight")
        self._norm = _affine(state, "text_model.final_layer_norm")
        self._projection = state.pop("text_projection.weight")
        self._tower = Tower(state, "text_model", config, activation)

    def encode(self, ids: Tensor) -> Tensor:
        """The vectors of token ids, filled up behind their end token to one length."""
        ends = (ids if self._end is None else (ids == self._end).int()).argmax(dim=-1)
        x = F.embedding(ids, self._tokens) + self._positions[: ids.shape[-1]]
        pooled = self._tower.pooled(x, at=ends)
        return F.linear(self._tower.norm(pooled, self._norm), self._projection)


def _layer(state: State, prefix: str) -> Layer:
    qkv = [_affine(state, f"{prefix}.self_attn.{part}_proj") for part in ("q", "k", "v")]
    return Layer(
        norm1=_affine(state, f"{prefix}.layer_norm1"),
        qkv=Affine(*(torch.cat(parts) for parts in zip(*qkv, strict=True))),
        out=_affine(state, f"{prefix}.self_attn.out_proj"),
        norm2=_affine(state, f"{prefix}.layer_norm2"),
        fc1=_affine(state, f"{prefix}.mlp.fc1"),
        fc2=_affine(state, f"{prefix}.mlp.fc2"),
    )


def _affine(state: State, prefix: str) -> Affine:
    return Affine(state.pop(f"{prefix}.weight"), state.pop(f"{prefix}.bias"))
