"""A transformer, as CLIP's two towers and BERT have it: tokens in, pooled tokens out.

The arithmetic is that of transformers' `CLIPModel`, `MetaClip2Model`, `SiglipModel` and
`ChineseCLIPModel`, with these optimisations: queries, keys and values come from one matrix
multiplication; the last layer computes only the pooled tokens, where only those are asked for; and
in fp32 QuickGELU's slope is multiplied into the weights before and after it.

Layers compute in the chosen precision. What follows them, the heads of the towers, is a thousandth
of the work, and computed in fp32: rounding its result to bf16 would leave each number of a vector
with 8 significant bits.

Knows tensors; knows nothing of folders, devices or batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from score.folder.architecture import Transformer


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
    """The weights of a transformer block: attention, then an MLP, a norm before each.

    `qkv`: one layer for queries, keys and values together, or one for each. `norm1` of a post-norm
    block is the norm that follows the block before it.
    """

    norm1: Affine
    qkv: tuple[Linear, ...]
    out: Linear
    norm2: Affine
    fc1: Linear
    fc2: Linear


class _Names(NamedTuple):
    """The prefixes of a layer's tensors in a checkpoint."""

    norm1: str
    queries: str
    keys: str
    values: str
    out: str
    norm2: str
    fc1: str
    fc2: str


def _clip_names(prefix: str, number: int) -> _Names:
    layer = f"{prefix}.encoder.layers.{number}"
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    return _Names(
        norm1=f"{layer}.layer_norm1",
        queries=f"{attention}.q_proj",
        keys=f"{attention}.k_proj",
        values=f"{attention}.v_proj",
        out=f"{attention}.out_proj",
        norm2=f"{layer}.layer_norm2",
        fc1=f"{mlp}.fc1",
        fc2=f"{mlp}.fc2",
    )


def _bert_names(prefix: str, number: int) -> _Names:
    layer = f"{prefix}.encoder.layer.{number}"
    attention = f"{layer}.attention"
    return _Names(
        norm1=last_norm(prefix, number),
        queries=f"{attention}.self.query",
        keys=f"{attention}.self.key",
        values=f"{attention}.self.value",
        out=f"{attention}.output.dense",
        norm2=f"{attention}.output.LayerNorm",
        fc1=f"{layer}.intermediate.dense",
        fc2=f"{layer}.output.dense",
    )


def last_norm(prefix: str, layers: int) -> str:
    """The prefix of the norm that follows a number of post-norm layers, or the embeddings."""
    if layers == 0:
        return f"{prefix}.embeddings.LayerNorm"
    return f"{prefix}.encoder.layer.{layers - 1}.output.LayerNorm"


SLOPE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x): the activation of OpenAI's CLIP, MetaCLIP and some of MetaCLIP-2."""
    return torch.sigmoid(SLOPE * x).mul_(x)


def sloped_quick_gelu(x: Tensor) -> Tensor:
    """1.702 x → 1.702 · QuickGELU(x), in place: one pass over memory instead of three."""
    return F.silu(x, inplace=True)


def tanh_gelu(x: Tensor) -> Tensor:
    """GELU's approximation by tanh: the activation of SigLIP."""
    return F.gelu(x, approximate="tanh")


Activation = Callable[[Tensor], Tensor]


_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "quick_gelu": quick_gelu,
}


def activation(name: str) -> Activation:
    """The activation function of a configuration."""
    return _ACTIVATIONS[name]


def _sloped(name: str, dtype: torch.dtype, layout: Layout) -> bool:
    """Whether QuickGELU's slope is in the weights (`_mlp`).

    It is in fp32. Half precision would round once more, except where a layer has a factor.
    """
    return name == "quick_gelu" and (dtype == torch.float32 or layout.scaled is not None)


class Tower:
    """The transformer of an image tower or a text tower."""

    def __init__(
        self,
        take: TensorLoader,
        prefix: str,
        config: Transformer,
        layout: Layout,
        dtype: torch.dtype,
        *,
        pools: bool = True,
        post_norm: bool = False,
    ) -> None:
        """`dtype`: of the tensors from `take`. `pools`: whether `pooled` is called, not `all`.

        `post_norm`: norms follow the sums, as in BERT: what a block leaves is not yet normalised.
        """
        self._post_norm = post_norm
        self._heads = config.heads
        self._eps = config.epsilon
        sloped = _sloped(config.activation, dtype, layout)
        self._activation = sloped_quick_gelu if sloped else activation(config.activation)
        last = layout._replace(fused=False) if pools else layout
        self._layers = [
            _layer(
                take,
                (_bert_names if post_norm else _clip_names)(prefix, number),
                layout if number < config.layers - 1 else last,
                sloped,
            )
            for number in range(config.layers)
        ]

    def all(self, x: Tensor) -> Tensor:
        """Tokens [n, t, width] → all of them after the layers."""
        for layer in self._layers:
            x = self._block(layer, x, x)
        return x

    def pooled(self, x: Tensor, at: Tensor | slice, mask: Tensor | None = None) -> Tensor:
        """Tokens [n, t, width] → the pooled tokens of each row, [n, k, width].

        `at`: their positions in the row, [n, k], or the same ones in each row. `mask`: added to the
        attention logits, [n, t, t]; None for no mask.
        """
        for layer in self._layers[:-1]:
            x = self._block(layer, x, x, mask)
        if isinstance(at, slice):
            return self._block(self._layers[-1], x, x[:, at], None if mask is None else mask[:, at])
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
        if self._post_norm:
            queries = normed if queries is x else self.norm(queries, layer.norm1)
        if len(layer.qkv) == 1:
            q, k, v = layer.qkv[0](normed).chunk(3, dim=-1)
        else:
            asking = queries if self._post_norm else self.norm(queries, layer.norm1)
            sources = (asking, normed, normed)
            q, k, v = (part(source) for part, source in zip(layer.qkv, sources, strict=True))
        q, k, v = (self.split(part) for part in (q, k, v))
        heads = None if mask is None else mask[:, None]  # the same for all heads
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=heads)
        y = queries + layer.out(attended.transpose(1, 2).flatten(2))
        middle = self.norm(y, layer.norm2)
        passed = middle if self._post_norm else y
        return passed + layer.fc2(self._activation(layer.fc1(middle)))

    def split(self, x: Tensor) -> Tensor:
        """[n, t, width] → [n, heads, t, width / heads]."""
        n, t, _ = x.shape
        return x.reshape(n, t, self._heads, -1).transpose(1, 2)


def _layer(take: TensorLoader, names: _Names, layout: Layout, sloped: bool) -> Layer:
    """A layer's weights, by their names in a checkpoint. `sloped`: for `sloped_quick_gelu`."""
    qkv = [affine(take, name) for name in (names.queries, names.keys, names.values)]
    if layout.fused:
        qkv = [Affine(*(torch.cat(parts) for parts in zip(*qkv, strict=True)))]
    fc1, fc2 = _mlp(take, names, layout, sloped)
    return Layer(
        norm1=affine(take, names.norm1),
        qkv=tuple(layout.linear(*part) for part in qkv),
        out=layout.linear(*affine(take, names.out)),
        norm2=affine(take, names.norm2),
        fc1=fc1,
        fc2=fc2,
    )


def _mlp(take: TensorLoader, names: _Names, layout: Layout, sloped: bool) -> tuple[Linear, Linear]:
    """The two layers of an MLP. `sloped`: the first one's product is multiplied by `SLOPE`, which
    the second one takes away."""
    fc1, fc2 = affine(take, names.fc1), affine(take, names.fc2)
    if sloped and layout.scaled:
        first = layout.scaled(fc1.weight, fc1.bias * SLOPE, SLOPE)
        return first, layout.scaled(fc2.weight, fc2.bias, 1 / SLOPE)
    if sloped:
        fc1.weight.mul_(SLOPE)
        fc1.bias.mul_(SLOPE)
        fc2.weight.div_(SLOPE)
    return layout.linear(*fc1), layout.linear(*fc2)


def affine(take: TensorLoader, prefix: str, dtype: torch.dtype | None = None) -> Affine:
    """The weight and the bias under a prefix, as `take` gives them."""
    return Affine(take(f"{prefix}.weight", dtype), take(f"{prefix}.bias", dtype))
