"""Checkpoints of OpenCLIP: a folder with `open_clip_config.json`, or a bare file of weights.

The names and meanings of the configuration are those of `open_clip.model.CLIPVisionCfg` and
`CLIPTextCfg` (3.x); `openclip_tensors` has those of the tensors. What the canonical layout cannot
describe is refused by name, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from score.checkpoints import (
    openclip_others,
    openclip_siglip,
    openclip_tensors,
    state_dict,
    transformers_layout,
)
from score.checkpoints.openclip_others import CONFIG, object_in
from score.checkpoints.source import Source, Tensors, opened
from score.checkpoints.state_dict import Names
from score.errors import ModelError
from score.folder.architecture import Architecture
from score.folder.model_folder import PROCESSORS, read_json
from score.images.preprocess import BICUBIC, Preprocessor
from score.images.processors import CLIP_MEAN, CLIP_STD
from score.texts.cleaning import Cleaning
from score.texts.tokenizer import Tokenizer
from score.type_aliases import Json
from score.wording.quoting import shown

MakeTokenizer = Callable[[Architecture, str | None], Tokenizer]
"""Finds what makes token ids: for an architecture, and the Hub id that a configuration names."""

NAMES = Names("visual.conv1.weight", ("token_embedding.weight", "text.token_embedding.weight"))
SIGLIP = Names("visual.trunk.patch_embed.proj.weight", ("text.token_embedding.weight",))
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Keys that the canonical layout has, or that change no vector. Others must have their default.
_KNOWN = {
    "model_cfg": "embed_dim quick_gelu custom_text vision_cfg text_cfg init_logit_scale",
    "vision_cfg": "layers width head_width mlp_ratio patch_size image_size patch_dropout "
    "output_tokens timm_model_pretrained timm_drop timm_drop_path",
    "text_cfg": "context_length vocab_size width heads layers mlp_ratio eos_id pool_type pad_id "
    "hf_tokenizer_name hf_model_pretrained output_tokens",
}
_SIGLIPS = {
    "model_cfg": "init_logit_bias",
    "vision_cfg": "timm_model_name timm_pool timm_proj",
    "text_cfg": "no_causal_mask proj_bias act_kwargs norm_kwargs tokenizer_kwargs",
}
"""More of them, in a configuration that names one of timm's models."""

_DEFAULTS = {
    "pool_type": "tok",
    "proj_type": "linear",
    "pos_embed_type": "learnable",
    "block_type": "default",
}


def architecture(model: Json) -> Architecture:
    """What an OpenCLIP configuration (`model_cfg`) describes. Raises ModelError."""
    vision, text = object_in(model, "vision_cfg"), object_in(model, "text_cfg")
    openclip_others.check(model)
    is_siglip = bool(vision.get("timm_model_name"))
    what = "a SigLIP" if is_siglip else "a plain CLIP"
    for name, part in (("model_cfg", model), ("vision_cfg", vision), ("text_cfg", text)):
        _refuse_unknown(name, part, f"{_KNOWN[name]} {_SIGLIPS[name] if is_siglip else ''}", what)
    if is_siglip:
        return openclip_siglip.architecture(model, vision, text, _text_sizes(text))
    pooling = text.get("pool_type", "argmax")
    if pooling not in ("argmax", "eos"):
        raise ModelError(f"OpenCLIP's text_cfg.pool_type {pooling!r} is not argmax or eos")
    ids = (49406, 49407, 1) if pooling == "argmax" else (0, text.get("eos_id", 2), 1)
    act = {"hidden_act": "quick_gelu" if model.get("quick_gelu", False) else "gelu"}
    width = vision.get("width", 768)
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
            | _text_sizes(text)
            | dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), ids, strict=True)),
        }
    )


def is_openclips(files: Collection[str]) -> bool:
    """Whether what lies in a folder is a checkpoint in this layout, by the names of its files.

    Beside weights in the transformers layout it is not, unless these are timm's: of the image tower
    alone, and without an image processor.
    """
    if CONFIG not in files:
        return False
    if not transformers_layout.has_weights(files):
        return True
    is_timms = not any(name in files for name in PROCESSORS)
    return is_timms and any(name in files for name in WEIGHTS)


def _text_sizes(text: Json) -> dict[str, Any]:
    """The sizes in a `text_cfg`, in transformers' terms."""
    width = text.get("width", 512)
    return {
        "hidden_size": width,
        "intermediate_size": _times(width, text.get("mlp_ratio", 4.0)),
        "num_hidden_layers": text.get("layers", 12),
        "num_attention_heads": text.get("heads", 8),
        "vocab_size": text.get("vocab_size", 49408),
        "max_position_embeddings": text.get("context_length", 77),
    }


def folder(path: Path, tokenizer: MakeTokenizer, weights: str | None = None) -> Source:
    """The checkpoint in a folder. Raises ModelError.

    `tokenizer` finds the tokenizer. `weights`: as in `state_dict.find`.
    """
    config = read_json(path / CONFIG)
    files = [path / name for name in WEIGHTS if (path / name).is_file()]
    if not files:
        raise ModelError(f"no weights in {path}: neither {' nor '.join(WEIGHTS)}")
    arch = architecture(object_in(config, "model_cfg"))
    preprocess = object_in(config, "preprocess_cfg") if config.get("preprocess_cfg") else {}
    named = object_in(object_in(config, "model_cfg"), "text_cfg").get("hf_tokenizer_name")
    texts = tokenizer(arch, str(named) if named else None)
    is_siglip = arch.kind == "siglip"
    names = SIGLIP if is_siglip else NAMES
    cleaning = Cleaning("canonicalize" if is_siglip else "openclip")
    model = state_dict.find(opened(files[0]), (names,), weights)
    preprocessor = _preprocessor(preprocess, arch.vision.image)
    source = _source(model.tensors, arch, preprocessor, texts, cleaning)
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
    scale = (1,) if tensors.shape("logit_scale") == (1,) else ()
    if arch.kind == "siglip":
        parts = openclip_tensors.siglip(arch, scale)
    else:
        # `CustomTextCLIP` has a module for the text tower; `CLIP` its layers at the top level.
        prefix = "text." if tensors.shape("text.token_embedding.weight") else ""
        parts = openclip_tensors.clip(arch, prefix, scale)
    return Source(
        layout="OpenCLIP",
        architecture=arch,
        preprocessor=preprocessor,
        tokenizer=tokenizer.to_json(),
        tensors=tensors,
        parts=parts,
        cleaning=tokenizer.cleaning if tokenizer.cleaning.lower else cleaning,
    )


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


def _refuse_unknown(name: str, part: Json, known: str, what: str) -> None:
    """Raises ModelError for a key of `name` that is not known, but for its default."""
    for key, value in part.items():
        if key not in known.split() and value and value != _DEFAULTS.get(key):
            raise ModelError(f"OpenCLIP's {name}.{key}={shown(value)} is no part of {what}")


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
