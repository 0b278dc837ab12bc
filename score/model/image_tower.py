"""The image tower: uint8 pixels in, vectors out.

The patch embedding is a matrix multiplication, since its convolution's stride equals its width,
with the normalisation of pixels multiplied into its weights. An architecture says how the tokens
of an image are pooled (`families.ImagePooling`).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from score.folder.architecture import Vision
from score.images.preprocess import Channels
from score.model.heads import Head, Perceptron, Projection
from score.model.transformer import Affine, Layout, TensorLoader, Tower, affine

_MIDDLE = 128  # subtracted from 0…255: the differences are exact in bf16, their sums small
_EMBEDDINGS = "vision_model.embeddings"


class ImageTower:
    """uint8 images [n, height, width, 3] → vectors [n, dimension]."""

    def __init__(
        self,
        take: TensorLoader,
        config: Vision,
        normalisation: tuple[Channels, Channels],
        layout: Layout,
    ) -> None:
        """`normalisation`: `Preprocessor.normalisation`."""
        self._patches = _Patches(take, config, normalisation, layout)
        pooling = _ClassToken if config.pooling == "class" else _AttentionPooling
        self._pooling: _Pooling = pooling(take, config, layout, self._patches.dtype)
        self.head = _head(take, config)

    def encode(self, pixels: Tensor) -> Tensor:
        """The vectors of images, in fp32."""
        return self.head(self.pool(pixels))

    def pool(self, pixels: Tensor) -> Tensor:
        """The pooled tokens of images [n, width], for `head`."""
        return self._pooling(self._patches(pixels))


class _Patches:
    """Images → the tokens of their patches [n, patches, width], without positions."""

    def __init__(
        self,
        take: TensorLoader,
        config: Vision,
        normalisation: tuple[Channels, Channels],
        layout: Layout,
    ) -> None:
        self._side = config.patch
        prefix = f"{_EMBEDDINGS}.patch_embedding"
        bias = take(f"{prefix}.bias", torch.float32) if config.pooling == "attention" else None
        like = take(f"{prefix}.weight")
        weight = take(f"{prefix}.weight", torch.float32)
        self._embed = layout.linear(*_normalising(weight, bias, *normalisation, like=like))
        self.dtype = like.dtype

    def __call__(self, pixels: Tensor) -> Tensor:
        side = self._side
        n, height, width, _ = pixels.shape
        rows, columns = height // side, width // side
        whole = pixels[:, : rows * side, : columns * side]
        squares = whole.reshape(n, rows, side, columns, side, -1).transpose(2, 3)
        values = squares.reshape(n, rows * columns, -1).to(self.dtype).sub_(_MIDDLE)
        return self._embed(values)


class _Pooling(Protocol):
    """The layers of an image tower, and how they pool."""

    def __call__(self, patches: Tensor) -> Tensor:
        """The tokens of patches [n, patches, width] → pooled tokens [n, width]."""


class _ClassToken:
    """A class token before the patches is pooled (CLIP)."""

    def __init__(
        self, take: TensorLoader, config: Vision, layout: Layout, dtype: torch.dtype
    ) -> None:
        self._class = take(f"{_EMBEDDINGS}.class_embedding")
        self._positions = take(f"{_EMBEDDINGS}.position_embedding.weight")
        self._norm = affine(take, "vision_model.pre_layrnorm")  # so spelled in every checkpoint
        self._tower = Tower(take, "vision_model", config.tower, layout, dtype)

    def __call__(self, patches: Tensor) -> Tensor:
        first = self._class.expand(patches.shape[0], 1, -1)
        x = torch.cat([first, patches], dim=1) + self._positions
        return self._tower.pooled(self._tower.norm(x, self._norm), slice(0, 1))[:, 0]


class _AttentionPooling:
    """A learned query attends to all patches (SigLIP).

    The query is the same for every image, so its projection is computed once.
    """

    def __init__(
        self, take: TensorLoader, config: Vision, layout: Layout, dtype: torch.dtype
    ) -> None:
        self._positions = take(f"{_EMBEDDINGS}.position_embedding.weight")
        self._norm = affine(take, "vision_model.post_layernorm")
        self._tower = Tower(take, "vision_model", config.tower, layout, dtype, pools=False)
        prefix, width = "vision_model.head.attention", config.tower.width
        weight = take(f"{prefix}.in_proj_weight", torch.float32)
        bias = take(f"{prefix}.in_proj_bias", torch.float32)
        probe = take("vision_model.head.probe", torch.float32)
        query = F.linear(probe, weight[:width], bias[:width]).to(dtype)
        self._query = query.view(1, 1, config.tower.heads, -1).transpose(1, 2)
        self._key_value = layout.linear(weight[width:].to(dtype), bias[width:].to(dtype))
        self._out = layout.linear(*affine(take, f"{prefix}.out_proj"))

    def __call__(self, patches: Tensor) -> Tensor:
        x = self._tower.norm(self._tower.all(patches + self._positions), self._norm)
        k, v = (self._tower.split(part) for part in self._key_value(x).chunk(2, dim=-1))
        query = self._query.expand(x.shape[0], -1, -1, -1)
        attended = F.scaled_dot_product_attention(query, k, v)
        return self._out(attended.transpose(1, 2).flatten(2))[:, 0]


def _head(take: TensorLoader, config: Vision) -> Head:
    if config.pooling == "attention":
        return Perceptron(take, "vision_model.head", config.tower)
    epsilon = config.tower.epsilon
    return Projection(take, "vision_model.post_layernorm", "visual_projection", epsilon)


def _normalising(
    patch: Tensor, bias: Tensor | None, factors: Channels, offsets: Channels, *, like: Tensor
) -> Affine:
    """The patch embedding's weights [width, 3, side, side] with the normalisation multiplied in.

    Σ w (f v + o) = Σ w f (v - m) + Σ w f (m + o / f), where m is `_MIDDLE`. Both sums use the same
    rounded weights, so that rounding errors cancel. `bias`: of the embedding, where it has one.
    """
    last = patch.cpu().double().permute(0, 2, 3, 1)  # channels last, as in an image
    weight = (last * torch.from_numpy(factors)).to(like.dtype)
    offset = (weight.double() @ torch.from_numpy(_MIDDLE + offsets / factors)).sum((1, 2))
    if bias is not None:
        offset += bias.cpu().double()
    return Affine(weight.flatten(1).to(like.device), offset.to(like))
