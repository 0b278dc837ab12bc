"""The names of OpenCLIP's tensors: those of a plain CLIP, and of a SigLIP with timm's image tower.

They are those of `open_clip.model.CLIP` and `CustomTextCLIP` (3.x), and under `visual.trunk.` those
of `timm.models.vision_transformer.VisionTransformer` (1.x). Each function maps every tensor of the
canonical model to where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from score.checkpoints.source import Part
from score.folder.architecture import Architecture, Shape, Text, Transformer

_Named = Iterator[tuple[str, Part]]


def clip(arch: Architecture, text: str, scale: Shape) -> dict[str, Part]:
    """A plain CLIP's. `text`: the prefix of its text tower; `scale`: the shape of `logit_scale`."""
    shapes, image = arch.shapes(), "vision_model.embeddings"
    return dict(
        [
            _scalar("logit_scale", scale, shapes["logit_scale"]),
            *_text_tower(arch.text, text, shapes),
            _turned("text_projection.weight", f"{text}text_projection", shapes),
            _same(f"{image}.class_embedding", "visual.class_embedding", shapes),
            _same(f"{image}.patch_embedding.weight", "visual.conv1.weight", shapes),
            _same(f"{image}.position_embedding.weight", "visual.positional_embedding", shapes),
            *_affine("vision_model.pre_layrnorm", "visual.ln_pre", shapes),
            *_layers("vision_model", "visual.transformer", arch.vision.tower, shapes),
            *_affine("vision_model.post_layernorm", "visual.ln_post", shapes),
            _turned("visual_projection.weight", "visual.proj", shapes),
        ]
    )


def siglip(arch: Architecture, scale: Shape) -> dict[str, Part]:
    """A SigLIP's. `scale`: the shape of `logit_scale` and `logit_bias`."""
    shapes, image, trunk = arch.shapes(), "vision_model.embeddings", "visual.trunk"
    positions = f"{image}.position_embedding.weight"
    return dict(
        [
            _scalar("logit_scale", scale, shapes["logit_scale"]),
            *_text_tower(arch.text, "text.", shapes),
            *_affine("text_model.head", "text.text_projection", shapes),
            *_affine(f"{image}.patch_embedding", f"{trunk}.patch_embed.proj", shapes),
            (positions, Part(f"{trunk}.pos_embed", (1, *shapes[positions]), _first)),
            *_trunk_layers(arch.vision.tower, shapes),
            *_affine("vision_model.post_layernorm", f"{trunk}.norm", shapes),
            *_attention_pooling(arch.vision.tower, shapes),
            _scalar("logit_bias", scale, shapes["logit_bias"]),
        ]
    )


def _text_tower(text: Text, prefix: str, shapes: dict[str, Shape]) -> _Named:
    """A text tower's but for its projection."""
    words = "text_model.embeddings"
    yield _same(f"{words}.token_embedding.weight", f"{prefix}token_embedding.weight", shapes)
    yield _same(f"{words}.position_embedding.weight", f"{prefix}positional_embedding", shapes)
    yield from _layers("text_model", f"{prefix}transformer", text.tower, shapes)
    yield from _affine("text_model.final_layer_norm", f"{prefix}ln_final", shapes)


def _layers(name: str, source: str, tower: Transformer, shapes: dict[str, Shape]) -> _Named:
    for number in range(tower.layers):
        ours, theirs = f"{name}.encoder.layers.{number}", f"{source}.resblocks.{number}"
        yield from _affine(f"{ours}.layer_norm1", f"{theirs}.ln_1", shapes)
        attention = f"{theirs}.attn.in_proj_"
        yield from _thirds(f"{ours}.self_attn", attention, tower.width)
        yield from _affine(f"{ours}.self_attn.out_proj", f"{theirs}.attn.out_proj", shapes)
        yield from _affine(f"{ours}.layer_norm2", f"{theirs}.ln_2", shapes)
        yield from _affine(f"{ours}.mlp.fc1", f"{theirs}.mlp.c_fc", shapes)
        yield from _affine(f"{ours}.mlp.fc2", f"{theirs}.mlp.c_proj", shapes)


def _trunk_layers(tower: Transformer, shapes: dict[str, Shape]) -> _Named:
    for number in range(tower.layers):
        ours, theirs = f"vision_model.encoder.layers.{number}", f"visual.trunk.blocks.{number}"
        yield from _affine(f"{ours}.layer_norm1", f"{theirs}.norm1", shapes)
        yield from _thirds(f"{ours}.self_attn", f"{theirs}.attn.qkv.", tower.width)
        yield from _affine(f"{ours}.self_attn.out_proj", f"{theirs}.attn.proj", shapes)
        yield from _affine(f"{ours}.layer_norm2", f"{theirs}.norm2", shapes)
        for layer in ("fc1", "fc2"):
            yield from _affine(f"{ours}.mlp.{layer}", f"{theirs}.mlp.{layer}", shapes)


def _attention_pooling(tower: Transformer, shapes: dict[str, Shape]) -> _Named:
    """timm keeps the query's projection apart from those of keys and values."""
    ours, theirs, width = "vision_model.head", "visual.trunk.attn_pool", tower.width
    yield _same(f"{ours}.probe", f"{theirs}.latent", shapes)
    for kind, columns in (("weight", (width,)), ("bias", ())):
        rest = Part(f"{theirs}.kv.{kind}", (2 * width, *columns))
        query = Part(f"{theirs}.q.{kind}", (width, *columns), rest=rest)
        yield f"{ours}.attention.in_proj_{kind}", query
    yield from _affine(f"{ours}.attention.out_proj", f"{theirs}.proj", shapes)
    yield from _affine(f"{ours}.layernorm", f"{theirs}.norm", shapes)
    for layer in ("fc1", "fc2"):
        yield from _affine(f"{ours}.mlp.{layer}", f"{theirs}.mlp.{layer}", shapes)


def _thirds(ours: str, theirs: str, width: int) -> _Named:
    """Queries, keys and values, which are stacked in one tensor. `theirs`: all of its name but
    `weight` or `bias`."""
    for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
        cut = partial(_rows, start=index * width, end=(index + 1) * width)
        yield f"{ours}.{part}.weight", Part(f"{theirs}weight", (3 * width, width), cut)
        yield f"{ours}.{part}.bias", Part(f"{theirs}bias", (3 * width,), cut)


def _scalar(name: str, shape: Shape, wanted: Shape) -> tuple[str, Part]:
    return name, Part(name, shape, lambda tensor: tensor.reshape(wanted))


def _same(name: str, source: str, shapes: dict[str, Shape]) -> tuple[str, Part]:
    return name, Part(source, shapes[name])


def _turned(name: str, source: str, shapes: dict[str, Shape]) -> tuple[str, Part]:
    return name, Part(source, shapes[name][::-1], Tensor.t)


def _affine(name: str, source: str, shapes: dict[str, Shape]) -> _Named:
    yield _same(f"{name}.weight", f"{source}.weight", shapes)
    yield _same(f"{name}.bias", f"{source}.bias", shapes)


def _rows(tensor: Tensor, start: int, end: int) -> Tensor:
    return tensor[start:end]


def _first(tensor: Tensor) -> Tensor:
    return tensor[0]
