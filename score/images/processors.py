"""transformers' image processors by name, and what each does where its configuration is silent.

`preprocessor_config.json` holds only what differs from the defaults of the class that it names, and
the classes differ: `"size": 224` is a square to `ViTImageProcessor` and the shortest edge to
`CLIPImageProcessor`. Known here are the classes made of nothing but the common steps (convert to
RGB, resize, centre crop, rescale, normalise); any other is refused by name.

The defaults are the class attributes in transformers 5, models/*/image_processing_pil_*.py.
Knows JSON; nothing of images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from score.arrays import Json
from score.errors import ModelError

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
    """`crop`: what `do_center_crop` crops to where only that is asked for."""
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
"""Class name without its ending → all keys that decide pixels."""

# To these a `size` of one number is the shortest edge, to the others a square.
_SHORTEST_EDGE = {"CLIP", "ChineseCLIP", "Bit", "Siglip"}

# A class had one of these endings, by version and backend; the pixels are the same steps'.
_NAME = re.compile(r"(.+?)(?:ImageProcessor|FeatureExtractor)(?:Fast|Pil)?")


def kind(config: Json) -> str:
    """The key of `DEFAULTS` that a configuration names; CLIP's where it names no class.

    Old files say `feature_extractor_type`; `image_processor_type` goes before it, as in
    transformers, where `processor_class` decides nothing of pixels. Raises ModelError.
    """
    named = config.get("image_processor_type") or config.get("feature_extractor_type")
    if named is None:
        return "CLIP"
    match = _NAME.fullmatch(named) if isinstance(named, str) else None
    if match is None or match[1] not in DEFAULTS:
        known = ", ".join(f"{name}ImageProcessor" for name in DEFAULTS)
        raise ModelError(f"the image processor {named!r:.80} is not known; known are {known}")
    return match[1]


def complete(config: Json) -> dict[str, Any]:
    """A configuration with every key that decides pixels, and no `size` of a single number.

    A null is what it is to transformers: none of it. Raises ModelError for a class that is not
    known, and for what changes pixels in ways that only few models use.
    """
    own = kind(config)
    if config.get("use_square_size"):
        raise ModelError("use_square_size, which KOSMOS-2 has, is not supported")
    if config.get("do_pad") and config.get("pad_size") is not None:
        raise ModelError("do_pad to a pad_size is not supported")
    whole = {**DEFAULTS[own], **config}
    if isinstance(whole["size"], int):
        side = whole["size"]
        edge = {"shortest_edge": side}
        whole["size"] = edge if own in _SHORTEST_EDGE else {"height": side, "width": side}
    return whole
