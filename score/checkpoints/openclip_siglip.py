"""SigLIP and SigLIP 2 as OpenCLIP configures them: timm's image tower, a text tower of OpenCLIP's.

Such a configuration names one of timm's models in place of an image tower's sizes; `TRUNKS` has
those of timm (1.x) that belong to a SigLIP. What no SigLIP has is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from score.checkpoints.architectures import SIGLIP_BASE, SIGLIP_GIANT, SIGLIP_LARGE, SIGLIP_SO400M
from score.errors import ModelError
from score.folder.architecture import Architecture, Transformer, Vision
from score.folder.families import FAMILIES, Activation
from score.type_aliases import Json
from score.wording.quoting import shown

_TANH: Activation = "gelu_pytorch_tanh"

# Size, side of a patch and activation of timm's models; the sides of their images. Which of them
# have GELU's approximation by tanh does not depend on whose weights they hold.
_MODELS: tuple[tuple[str, int, Activation, tuple[int, ...]], ...] = (
    ("base", 16, "gelu", (224, 256, 384, 512)),
    ("base", 32, _TANH, (256,)),
    ("large", 16, "gelu", (256, 384)),
    ("large", 16, _TANH, (512,)),
    ("so400m", 14, "gelu", (224, 378, 384)),
    ("so400m", 16, _TANH, (256, 384, 512)),
    ("giantopt", 16, _TANH, (256, 384)),
)
_SIZES = {
    "base": SIGLIP_BASE,
    "large": SIGLIP_LARGE,
    "so400m": SIGLIP_SO400M,
    "giantopt": SIGLIP_GIANT,
}

TRUNKS: Mapping[str, Vision] = {
    f"vit_{size}_patch{patch}_siglip_{image}": Vision(
        Transformer(*_SIZES[size], activation, 1e-6), image, patch, pooling="attention"
    )
    for size, patch, activation, images in _MODELS
    for image in images
}
"""The image towers, by timm's names."""

# What a SigLIP's configuration has to say: timm's and OpenCLIP's defaults are others.
_WANTED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "model_cfg": {"custom_text": (True,), "quick_gelu": (None, False)},
    "vision_cfg": {"timm_pool": ("map",), "timm_proj": ("none",)},
    "text_cfg": {
        "no_causal_mask": (True,),
        "pool_type": ("last",),
        "proj_bias": (True,),
        "act_kwargs": (None, {"approximate": "none"}, {"approximate": "tanh"}),
        "tokenizer_kwargs": ({"clean": "canonicalize"},),
    },
}


def architecture(model: Json, vision: Json, text: Json, sizes: Json) -> Architecture:
    """What a configuration describes whose `vision_cfg` names one of timm's models.

    `sizes`: of the text tower, in transformers' terms. Raises ModelError.
    """
    trunk = _trunk(vision)
    for name, part in (("model_cfg", model), ("vision_cfg", vision), ("text_cfg", text)):
        for key, values in _WANTED[name].items():
            if part.get(key) not in values:
                wanted = " or ".join(shown(value) for value in values if value is not None)
                raise ModelError(
                    f"OpenCLIP's {name}.{key}={shown(part.get(key))} is no SigLIP's, whose is "
                    f"{wanted}"
                )
    tanh = text.get("act_kwargs") == {"approximate": "tanh"}
    whole = Architecture.from_config(
        {
            "model_type": "siglip",
            "vision_config": {
                "hidden_size": trunk.tower.width,
                "num_attention_heads": trunk.tower.heads,
            },
            "text_config": {
                **sizes,
                "projection_size": model.get("embed_dim"),
                "hidden_act": _TANH if tanh else "gelu",
                "layer_norm_eps": _epsilon(text),
                **{name: FAMILIES["siglip"].text[name] for name in _IDS},
            },
        }
    )
    return replace(whole, vision=trunk)


_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _trunk(vision: Json) -> Vision:
    name = vision.get("timm_model_name")
    trunk = TRUNKS.get(name) if isinstance(name, str) else None
    if trunk is None:
        raise ModelError(
            f"OpenCLIP's vision_cfg.timm_model_name={shown(name)} is none of SigLIP's, which are "
            f"{', '.join(TRUNKS)}; others of timm's are not supported"
        )
    # To OpenCLIP, the size of prepared images alone: timm's model has its own.
    if vision.get("image_size", 224) != trunk.image:
        raise ModelError(
            f"OpenCLIP's vision_cfg.image_size={shown(vision.get('image_size', 224))} is not that "
            f"of {name}"
        )
    return trunk


def _epsilon(text: Json) -> object:
    """The text tower's; an invalid value is refused later."""
    options = text.get("norm_kwargs") or {}
    if not isinstance(options, Mapping) or not options.keys() <= {"eps"}:
        raise ModelError(f"OpenCLIP's text_cfg.norm_kwargs={shown(options)} is no SigLIP's")
    return options.get("eps", 1e-5)
