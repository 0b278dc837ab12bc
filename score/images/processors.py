"""transformers' image processors by name, and the defaults of each.

`preprocessor_config.json` holds only what differs from the defaults of the class that it names, and
the classes differ: `"size": 224` is a square for `ViTImageProcessor` and the shortest edge for
`CLIPImageProcessor`. Supported are the classes that consist of the common steps only (convert to
RGB, resize, centre crop, rescale, normalise); others are an error.

The defaults are the class attributes in transformers 5, models/*/image_processing_pil_*.py.
Independent of images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from score.errors import ModelError
from score.type_aliases import Json
from score.wording.quoting import quoted

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_BILINEAR, _BICUBIC = 2, 3  # PIL.Image.Resampling

_COMMON: Json = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "resample": _BICUBIC,
}


def _cropping(size: Json, crop: int, mean: object, std: object) -> Json:
    crops = {"do_center_crop": True, "crop_size": {"height": crop, "width": crop}}
    return {**_COMMON, **crops, "size": size, "image_mean": mean, "image_std": std}


def _squashing(side: int, mean: object, std: object, crop: int | None = None) -> Json:
    """`crop`: side in pixels of `do_center_crop`, if a configuration enables it without a size."""
    size = {"height": side, "width": side}
    crop_size = {"height": crop, "width": crop} if crop else None
    crops = {"do_center_crop": False, "crop_size": crop_size}
    return {**_COMMON, **crops, "size": size, "image_mean": mean, "image_std": std}


_CLIP = _cropping({"shortest_edge": 224}, 224, CLIP_MEAN, CLIP_STD)

DEFAULTS: Mapping[str, Json] = {
    "CLIP": _CLIP,
    "ChineseCLIP": _CLIP,
    "Bit": _CLIP,
    "Siglip": _squashing(224, _HALF, _HALF),
    "ViT": {**_squashing(224, _HALF, _HALF), "resample": _BILINEAR},
    "DeiT": _cropping({"height": 256, "width": 256}, 224, _HALF, _HALF),
    "Beit": _squashing(224, _HALF, _HALF, crop=224),
    "Blip": _squashing(384, CLIP_MEAN, CLIP_STD),
    "OwlViT": _squashing(768, CLIP_MEAN, CLIP_STD, crop=768),
}
"""Class name without its ending → all keys that affect pixels."""

# For these a `size` of one number is the shortest edge, for the others a square.
_SHORTEST_EDGE = {"CLIP", "ChineseCLIP", "Bit", "Siglip"}

# Endings of the same class in different versions and backends.
_NAME = re.compile(r"(.+?)(?:ImageProcessor|FeatureExtractor)(?:Fast|Pil)?")


def kind(config: Json) -> str:
    """The key of `DEFAULTS` that a configuration names; CLIP's where it names no class.

    Old files have `feature_extractor_type`; `image_processor_type` takes precedence, as in
    transformers. `processor_class` does not affect pixels. Raises ModelError.
    """
    named = config.get("image_processor_type") or config.get("feature_extractor_type")
    if named is None:
        return "CLIP"
    match = _NAME.fullmatch(named) if isinstance(named, str) else None
    if match is None or match[1] not in DEFAULTS:
        known = ", ".join(f"{name}ImageProcessor" for name in DEFAULTS)
        raise ModelError(f"the image processor {quoted(named)} is not supported, only {known}")
    return match[1]


def complete(config: Json) -> dict[str, Any]:
    """A configuration with every key that affects pixels, and `size` as an object.

    A null value disables a default, as in transformers. Raises ModelError for an unsupported class,
    and for options that change pixels and are not supported.
    """
    name = kind(config)
    if config.get("use_square_size"):
        raise ModelError("use_square_size, which KOSMOS-2 has, is not supported")
    if config.get("do_pad") and config.get("pad_size") is not None:
        raise ModelError("do_pad to a pad_size is not supported")
    whole = {**DEFAULTS[name], **config}
    if isinstance(whole["size"], int):
        side = whole["size"]
        edge = {"shortest_edge": side}
        whole["size"] = edge if name in _SHORTEST_EDGE else {"height": side, "width": side}
    return whole
