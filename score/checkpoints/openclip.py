"""Checkpoints of OpenCLIP: a folder with `open_clip_config.json`, or a bare file of weights.

The names and meanings of the configuration are those of `open_clip.model.CLIPVisionCfg` and
`CLIPTextCfg` (3.x), of the tensors those of `open_clip.model.CLIP` and `CustomTextCLIP`. What the
canonical layout cannot describe is refused by name, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from score.checkpoints import state_dict
from score.checkpoints.source import Part, Source, Tensors, opened
from score.checkpoints.state_dict import Names
from score.errors import ModelError
from score.folder.architecture import Architecture, Shape, Transformer
from score.folder.model_folder import read_json
from score.images.preprocess import BICUBIC, Preprocessor
from score.images.processors import CLIP_MEAN, CLIP_STD
from score.texts.cleaning import Cleaning
from score.texts.tokenizer import Tokenizer
from score.type_aliases import Json
from score.wording.quoting import shown

MakeTokenizer = Callable[[Architecture, str | None], Tokenizer]
"""Finds what makes token ids: for an architecture, and the Hub id that a configuration names."""

NAMES = Names("visual.conv1.weight", ("token_embedding.weight", "text.token_embedding.weight"))
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Keys that the canonical layout has, or that change no vector. Others must have their default.
_KNOWN = {
    "model_cfg": "embed_dim quick_gelu custom_text vision_cfg text_cfg",
    "vision_cfg": "layers width head_width mlp_ratio patch_size image_size patch_dropout "
    "output_tokens",
    "text_cfg": "context_length vocab_size width heads layers mlp_ratio eos_id pool_type pad_id "
    "hf_tokenizer_name hf_model_pretrained output_tokens",
}
_DEFAULTS = {
    "pool_type": "tok",
    "proj_type": "linear",
    "pos_embed_type": "learnable",
    "block_type": "default",
}


def architecture(model: Json) -> Architecture:
    """What an OpenCLIP configuration (`model_cfg`) describes. Raises ModelError."""
    vision, text = _object(model, "vision_cfg"), _object(model, "text_cfg")
    for name, part in (("model_cfg", model), ("vision_cfg", vision), ("text_cfg", text)):
        _refuse_unknown(name, part)
    pooling = text.get("pool_type", "argmax")
    if pooling not in ("argmax", "eos"):
        raise ModelError(f"OpenCLIP's text_cfg.pool_type {pooling!r} is not argmax or eos")
    ids = (49406, 49407, 1) if pooling == "argmax" else (0, text.get("eos_id", 2), 1)
    act = {"hidden_act": "quick_gelu" if model.get("quick_gelu", False) else "gelu"}
    width, words = vision.get("width", 768), text.get("width", 512)
    return Architecture.from_config(
        {
            "model_type": "clip" if pooling == "argmax" else "metaclip_2",
            "projection_dim": model.get("embed_dim"),
            "vision_config": act
            | {
                "hidden_size": width,
                "intermediate_size": _times(width, vision.get("mlp_ratio", 4.0)),
                "num_hidden_layers": vision.get("layers", 12),
                "num_attention_heads": _heads(width, vision.get("head_width", 64)),
                "image_size": vision.get("image_size", 224),
                "patch_size": vision.get("patch_size", 16),
            },
            "text_config": act
            | {
                "hidden_size": words,
                "intermediate_size": _times(words, text.get("mlp_ratio", 4.0)),
                "num_hidden_layers": text.get("layers", 12),
                "num_attention_heads": text.get("heads", 8),
                "vocab_size": text.get("vocab_size", 49408),
                "max_position_embeddings": text.get("context_length", 77),
            }
            | dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), ids, strict=True)),
        }
    )


def folder(path: Path, tokenizer: MakeTokenizer, weights: str | None = None) -> Source:
    """The checkpoint in a folder. Raises ModelError.

    `tokenizer` finds the tokenizer. `weights`: as in `state_dict.find`.
    """
    config = read_json(path / CONFIG)
    files = [path / name for name in WEIGHTS if (path / name).is_file()]
    if not files:
        raise ModelError(f"no weights in {path}: neither {' nor '.join(WEIGHTS)}")
    arch = architecture(_object(config, "model_cfg"))
    preprocess = _object(config, "preprocess_cfg") if config.get("preprocess_cfg") else {}
    named = _object(_object(config, "model_cfg"), "text_cfg").get("hf_tokenizer_name")
    texts = tokenizer(arch, str(named) if named else None)
    model = state_dict.find(opened(files[0]), (NAMES,), weights)
    preprocessor = _preprocessor(preprocess, arch.vision.image)
    source = _source(model.tensors, arch, preprocessor, texts, Cleaning("openclip"))
    return replace(source, remarks=model.remarks)


def file(tensors: Tensors, arch: Architecture, tokenizer: Tokenizer) -> Source:
    """Bare weights in this layout, whose architecture is known. Raises ModelError.

    Their texts are cleaned as the authors of such files do: OpenAI, LAION and MetaCLIP as OpenCLIP,
    MetaCLIP 2 not at all (`get_tokenizer` in its `src/mini_clip/factory.py`).
    """
    cleaning = Cleaning("openclip") if arch.kind == "clip" else Cleaning()
    return _source(tensors, arch, _preprocessor({}, arch.vision.image), tokenizer, cleaning)


def _source(
    tensors: Tensors,
    arch: Architecture,
    preprocessor: Preprocessor,
    tokenizer: Tokenizer,
    cleaning: Cleaning,
) -> Source:
    # `CustomTextCLIP` has a module for the text tower; `CLIP` has its layers at the top level.
    prefix = "text." if tensors.shape("text.token_embedding.weight") else ""
    return Source(
        layout="OpenCLIP",
        architecture=arch,
        preprocessor=preprocessor,
        tokenizer=tokenizer.to_json(),
        tensors=tensors,
        parts=_parts(arch, prefix, (1,) if tensors.shape("logit_scale") == (1,) else ()),
        cleaning=tokenizer.cleaning if tokenizer.cleaning.lower else cleaning,
    )


def _parts(arch: Architecture, text: str, scale: Shape) -> dict[str, Part]:
    shapes = arch.shapes()

    def same(name: str, source: str) -> tuple[str, Part]:
        return name, Part(source, shapes[name])

    def turned(name: str, source: str) -> tuple[str, Part]:
        return name, Part(source, shapes[name][::-1], Tensor.t)

    def affine(name: str, source: str) -> Iterator[tuple[str, Part]]:
        yield same(f"{name}.weight", f"{source}.weight")
        yield same(f"{name}.bias", f"{source}.bias")

    def layers(name: str, source: str, tower: Transformer) -> Iterator[tuple[str, Part]]:
        for number in range(tower.layers):
            ours = f"{name}.encoder.layers.{number}"
            theirs = f"{source}.resblocks.{number}"
            yield from affine(f"{ours}.layer_norm1", f"{theirs}.ln_1")
            yield from _attention(f"{ours}.self_attn", f"{theirs}.attn", tower.width)
            yield from affine(f"{ours}.self_attn.out_proj", f"{theirs}.attn.out_proj")
            yield from affine(f"{ours}.layer_norm2", f"{theirs}.ln_2")
            yield from affine(f"{ours}.mlp.fc1", f"{theirs}.mlp.c_fc")
            yield from affine(f"{ours}.mlp.fc2", f"{theirs}.mlp.c_proj")

    words, image = "text_model.embeddings", "vision_model.embeddings"
    return dict(
        [
            ("logit_scale", Part("logit_scale", scale, lambda tensor: tensor.reshape(()))),
            same(f"{words}.token_embedding.weight", f"{text}token_embedding.weight"),
            same(f"{words}.position_embedding.weight", f"{text}positional_embedding"),
            *layers("text_model", f"{text}transformer", arch.text.tower),
            *affine("text_model.final_layer_norm", f"{text}ln_final"),
            turned("text_projection.weight", f"{text}text_projection"),
            same(f"{image}.class_embedding", "visual.class_embedding"),
            same(f"{image}.patch_embedding.weight", "visual.conv1.weight"),
            same(f"{image}.position_embedding.weight", "visual.positional_embedding"),
            *affine("vision_model.pre_layrnorm", "visual.ln_pre"),
            *layers("vision_model", "visual.transformer", arch.vision.tower),
            *affine("vision_model.post_layernorm", "visual.ln_post"),
            turned("visual_projection.weight", "visual.proj"),
        ]
    )


def _attention(ours: str, theirs: str, width: int) -> Iterator[tuple[str, Part]]:
    """Queries, keys and values, which OpenCLIP stacks in one tensor."""
    for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
        rows = slice(index * width, (index + 1) * width)

        def cut(tensor: Tensor, rows: slice = rows) -> Tensor:
            return tensor[rows]

        yield f"{ours}.{part}.weight", Part(f"{theirs}.in_proj_weight", (3 * width, width), cut)
        yield f"{ours}.{part}.bias", Part(f"{theirs}.in_proj_bias", (3 * width,), cut)


def _preprocessor(config: Json, size: int) -> Preprocessor:
    """`preprocess_cfg`, whose defaults are those of `open_clip.transform.PreprocessCfg`."""
    modes = {"bicubic": BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    interpolation, mode = config.get("interpolation", "bicubic"), config.get("resize_mode")
    if not isinstance(interpolation, str) or interpolation not in modes:
        raise ModelError(f"OpenCLIP's interpolation {interpolation!r} is not bicubic or bilinear")
    if mode not in (None, "shortest", "squash"):
        raise ModelError(f"OpenCLIP's resize_mode {mode!r} is not shortest or squash")
    return Preprocessor.from_config(
        {
            "size": {"height": size, "width": size} if mode == "squash" else size,
            "do_center_crop": mode != "squash",
            "crop_size": size,
            "resample": modes[interpolation],
            "image_mean": config.get("mean", CLIP_MEAN),
            "image_std": config.get("std", CLIP_STD),
        }
    )


def _refuse_unknown(name: str, part: Json) -> None:
    for key, value in part.items():
        if key not in _KNOWN[name].split() and value and value != _DEFAULTS.get(key):
            raise ModelError(f"OpenCLIP's {name}.{key}={shown(value)} is no part of a plain CLIP")


def _object(config: Json, name: str) -> Json:
    value = config.get(name)
    if not isinstance(value, Mapping):
        raise ModelError(f"the OpenCLIP configuration has no {name}")
    return value


def _heads(width: object, head: object) -> object:
    """The number of heads, as OpenCLIP computes it; invalid values are refused later."""
    if not isinstance(width, int) or not isinstance(head, int) or head < 1:
        return f"{shown(width)} / {shown(head)}"
    return width // head


def _times(width: object, factor: object) -> object:
    """`int(width * factor)`, as OpenCLIP computes it; invalid values are refused later."""
    if not isinstance(width, int) or not isinstance(factor, (int, float)):
        return width
    product = float(min(width, 2**53)) * factor
    return int(product) if math.isfinite(product) else f"{width} × {factor}"
