"""CLIP's two towers: pixels or token ids in, projected vectors out.

The arithmetic is that of transformers' `CLIPModel` and `MetaClip2Model`, with these optimisations:
queries, keys and values come from one matrix multiplication; the patch embedding is one, too, since
its convolution's stride equals its width, with the normalisation of pixels multiplied into its
weights; the last layer computes only the pooled token; and in fp32 QuickGELU's slope is multiplied
into the weights before and after it.

Layers compute in the chosen precision, the head always in fp32: the last norm and the projection
are a thousandth of the work, and rounding their result to bf16 would leave each number of a vector
with 8 significant bits.

Knows tensors; knows nothing of folders, devices or batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from score.folder.architecture import Text, Transformer, Vision
from score.images.preprocess import Channels


class TensorLoader(Protocol):
    """Loads a checkpoint's tensors by name."""

    def __call__(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor on the device, in `dtype`; None is the precision to compute in."""


class Affine(NamedTuple):
    """Weight and bias."""

    weight: Tensor
    bias: Tensor


class Linear(Protocol):
    """A linear layer; its implementation chooses the layout of the weights in memory."""

    def __call__(self, x: Tensor) -> Tensor:
        """[…, in] → […, out]."""


class Plain(NamedTuple):
    """A linear layer with its weights as in the checkpoint."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """As `Linear`."""
        return F.linear(x, self.weight, self.bias)


MakeLinear = Callable[[Tensor, Tensor | None], Linear]
"""Weight and bias → a linear layer."""


class ScaledLinear:
    """factor · (x Wᵀ) + bias, the factor multiplied in before the product is rounded."""

    def __init__(self, weight: Tensor, bias: Tensor, factor: float) -> None:
        self._weight, self._bias, self._factor = weight.t(), bias, factor

    def __call__(self, x: Tensor) -> Tensor:
        """As `Linear`."""
        rows = x.flatten(0, -2)
        product = torch.addmm(self._bias, rows, self._weight, alpha=self._factor)
        return product.view(*x.shape[:-1], -1)


MakeScaled = Callable[[Tensor, Tensor, float], Linear]
"""Weight, bias and factor → a layer as `ScaledLinear`."""


class Layout(NamedTuple):
    """How towers keep their weights.

    linear: of all linear layers. fused: one layer computes queries, keys and values together,
    except in the last block, where only the pooled tokens have queries. scaled: of layers with a
    factor, in half precision; None where a factor would cost a rounding.
    """

    linear: MakeLinear
    fused: bool
    scaled: MakeScaled | None = None


class Layer(NamedTuple):
    """The weights of a pre-norm transformer block: attention, then an MLP.

    `qkv`: one layer for queries, keys and values together, or one for each.
    """

    norm1: Affine
    qkv: tuple[Linear, ...]
    out: Linear
    norm2: Affine
    fc1: Linear
    fc2: Linear


SLOPE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x): the activation of OpenAI's CLIP, MetaCLIP and some of MetaCLIP-2."""
    return torch.sigmoid(SLOPE * x).mul_(x)


def sloped_quick_gelu(x: Tensor) -> Tensor:
    """1.702 x → 1.702 · QuickGELU(x), in place: one pass over memory instead of three."""
    return F.silu(x, inplace=True)


Activation = Callable[[Tensor], Tensor]


def _activation(name: str, dtype: torch.dtype, layout: Layout) -> Activation:
    """The activation function of a configuration: `gelu` or `quick_gelu`.

    In fp32 QuickGELU's slope is in the weights (`_mlp`). Half precision would round once more,
    except where a layer has a factor.
    """
    if name != "quick_gelu":
        return F.gelu
    if dtype == torch.float32 or layout.scaled:
        return sloped_quick_gelu
    return quick_gelu


class Tower:
    """The transformer of an image tower or a text tower."""

    def __init__(
        self,
        take: TensorLoader,
        prefix: str,
        config: Transformer,
        layout: Layout,
        dtype: torch.dtype,
    ) -> None:
        """`dtype`: of the tensors from `take`."""
        self._heads = config.heads
        self._eps = config.epsilon
        self._activation = _activation(config.activation, dtype, layout)
        sloped = self._activation is sloped_quick_gelu
        last = layout._replace(fused=False)
        self._layers = [
            _layer(
                take,
                f"{prefix}.encoder.layers.{number}",
                layout if number < config.layers - 1 else last,
                sloped,
            )
            for number in range(config.layers)
        ]

    def pooled(self, x: Tensor, at: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Tokens [n, t, width] → the pooled tokens of each row, [n, k, width].

        `at`: their positions in the row, [n, k]; None pools the first token. `mask`: added to the
        attention logits, [n, t, t]; None for no mask.
        """
        for layer in self._layers[:-1]:
            x = self._block(layer, x, x, mask)
        if at is None:
            return self._block(self._layers[-1], x, x[:, :1], None if mask is None else mask[:, :1])
        queries = x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))
        if mask is not None:
            mask = mask.gather(1, at[..., None].expand(-1, -1, x.shape[1]))
        return self._block(self._layers[-1], x, queries, mask)

    def norm(self, x: Tensor, affine: Affine) -> Tensor:
        """Layer norm over the last axis."""
        return F.layer_norm(x, x.shape[-1:], *affine, self._eps)

    def _block(
        self, layer: Layer, x: Tensor, queries: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The tokens `queries`, all or some of `x`, after attention over `x` and the MLP."""
        normed = self.norm(x, layer.norm1)
        if len(layer.qkv) == 1:
            q, k, v = layer.qkv[0](normed).chunk(3, dim=-1)
        else:
            sources = (self.norm(queries, layer.norm1), normed, normed)
            q, k, v = (part(source) for part, source in zip(layer.qkv, sources, strict=True))
        q, k, v = (self._split(part) for part in (q, k, v))
        heads = None if mask is None else mask[:, None]  # the same for all heads
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=heads)
        y = queries + layer.out(attended.transpose(1, 2).flatten(2))
        return y + layer.fc2(self._activation(layer.fc1(self.norm(y, layer.norm2))))

    def _split(self, x: Tensor) -> Tensor:
        """[n, t, width] → [n, heads, t, width / heads]."""
        n, t, _ = x.shape
        return x.reshape(n, t, self._heads, -1).transpose(1, 2)


class Head:
    """Pooled tokens → vectors: the last norm and the projection, in fp32."""

    def __init__(self, take: TensorLoader, norm: str, projection: str, epsilon: float) -> None:
        """`norm`, `projection`: the prefixes of their names in a checkpoint."""
        self._norm = _affine(take, norm, torch.float32)
        self._projection = take(f"{projection}.weight", torch.float32)
        self._epsilon = epsilon

    def __call__(self, pooled: Tensor) -> Tensor:
        """[…, width], in any precision → [… , dimension] in fp32."""
        x = F.layer_norm(pooled.float(), pooled.shape[-1:], *self._norm, self._epsilon)
        return F.linear(x, self._projection)


_MIDDLE = 128  # subtracted from 0…255: the differences are exact in bf16, their sums small


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
        embeddings = "vision_model.embeddings"
        self._side = config.patch
        patch = take(f"{embeddings}.patch_embedding.weight", torch.float32)
        self._class = take(f"{embeddings}.class_embedding")
        self._patch = layout.linear(*_normalising(patch, *normalisation, like=self._class))
        self._positions = take(f"{embeddings}.position_embedding.weight")
        self._pre = _affine(take, "vision_model.pre_layrnorm")  # so spelled in every checkpoint
        epsilon = config.tower.epsilon
        self.head = Head(take, "vision_model.post_layernorm", "visual_projection", epsilon)
        dtype = self._class.dtype
        self._tower = Tower(take, "vision_model", config.tower, layout, dtype)

    def encode(self, pixels: Tensor) -> Tensor:
        """The vectors of images, in fp32."""
        return self.head(self.pool(pixels))

    def pool(self, pixels: Tensor) -> Tensor:
        """The pooled tokens of images [n, width], for `head`."""
        side = self._side
        n, height, width, _ = pixels.shape
        rows, columns = height // side, width // side
        whole = pixels[:, : rows * side, : columns * side]
        squares = whole.reshape(n, rows, side, columns, side, -1).transpose(2, 3)
        values = squares.reshape(n, rows * columns, -1).to(self._class.dtype).sub_(_MIDDLE)
        tokens = self._patch(values)
        first = self._class.expand(tokens.shape[0], 1, -1)
        x = torch.cat([first, tokens], dim=1) + self._positions
        return self._tower.pooled(self._tower.norm(x, self._pre))[:, 0]


class TextTower:
    """Token ids [n, t] → vectors [n, k, dimension] of the texts in each row."""

    def __init__(self, take: TensorLoader, config: Text, layout: Layout) -> None:
        embeddings = "text_model.embeddings"
        self._tokens = take(f"{embeddings}.token_embedding.weight")
        self._positions = take(f"{embeddings}.position_embedding.weight")
        epsilon = config.tower.epsilon
        self.head = Head(take, "text_model.final_layer_norm", "text_projection", epsilon)
        dtype = self._tokens.dtype
        self._tower = Tower(take, "text_model", config.tower, layout, dtype)

    def encode(self, ids: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """The vectors of texts, as `packing.Packed` describes them, in fp32."""
        return self.head(self.pool(ids, positions, owners, ends))

    def pool(self, ids: Tensor, positions: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """The pooled tokens of texts [n, k, width], for `head`."""
        x = F.embedding(ids, self._tokens) + F.embedding(positions, self._positions)
        return self._tower.pooled(x, ends, _mask(owners, x.dtype))


def _mask(owners: Tensor, dtype: torch.dtype) -> Tensor:
    """The attention mask [n, t, t]: 0 for tokens of the same text up to its own, else -∞."""
    index = torch.arange(owners.shape[1], device=owners.device)
    seen = (owners[:, :, None] == owners[:, None]) & (index[:, None] >= index)
    return torch.zeros(seen.shape, dtype=dtype, device=owners.device).masked_fill(~seen, -torch.inf)


def _layer(take: TensorLoader, prefix: str, layout: Layout, sloped: bool) -> Layer:
    """A layer's weights, by their names in a checkpoint. `sloped`: for `sloped_quick_gelu`."""
    qkv = [_affine(take, f"{prefix}.self_attn.{part}_proj") for part in ("q", "k", "v")]
    if layout.fused:
        qkv = [Affine(*(torch.cat(parts) for parts in zip(*qkv, strict=True)))]
    fc1, fc2 = _mlp(take, f"{prefix}.mlp", layout, sloped)
    return Layer(
        norm1=_affine(take, f"{prefix}.layer_norm1"),
        qkv=tuple(layout.linear(*part) for part in qkv),
        out=layout.linear(*_affine(take, f"{prefix}.self_attn.out_proj")),
        norm2=_affine(take, f"{prefix}.layer_norm2"),
        fc1=fc1,
        fc2=fc2,
    )


def _mlp(take: TensorLoader, prefix: str, layout: Layout, sloped: bool) -> tuple[Linear, Linear]:
    """The two layers of an MLP. `sloped`: the first one's product is multiplied by `SLOPE`, which
    the second one takes away."""
    fc1, fc2 = (_affine(take, f"{prefix}.{part}") for part in ("fc1", "fc2"))
    if sloped and layout.scaled:
        first = layout.scaled(fc1.weight, fc1.bias * SLOPE, SLOPE)
        return first, layout.scaled(fc2.weight, fc2.bias, 1 / SLOPE)
    if sloped:
        fc1.weight.mul_(SLOPE)
        fc1.bias.mul_(SLOPE)
        fc2.weight.div_(SLOPE)
    return layout.linear(*fc1), layout.linear(*fc2)


def _normalising(patch: Tensor, factors: Channels, offsets: Channels, *, like: Tensor) -> Affine:
    """The patch embedding's weights [width, 3, side, side] with the normalisation multiplied in.

    Σ w (f v + o) = Σ w f (v - m) + Σ w f (m + o / f), where m is `_MIDDLE`. Both sums use the same
    rounded weights, so that rounding errors cancel.
    """
    last = patch.cpu().double().permute(0, 2, 3, 1)  # channels last, as in an image
    weight = (last * torch.from_numpy(factors)).to(like.dtype)
    bias = (weight.double() @ torch.from_numpy(_MIDDLE + offsets / factors)).sum((1, 2))
    return Affine(weight.flatten(1).to(like.device), bias.to(like))


def _affine(take: TensorLoader, prefix: str, dtype: torch.dtype | None = None) -> Affine:
    return Affine(take(f"{prefix}.weight", dtype), take(f"{prefix}.bias", dtype))
