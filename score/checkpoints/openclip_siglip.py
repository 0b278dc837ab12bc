"""SigLIP and SigLIP 2 as OpenCLIP configures them: timm's image tower, a text tower of OpenCLIP's.

Such a configuration names one of timm's models in place of an image tower's sizes; `TRUNKS` has
those of timm (1.x) that belong to a SigLIP. What no SigLIP has is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from score.checkpoints.architectures import SIGLIP_ARCHITECTURES
from score.errors import ModelError
from score.folder.architecture import Architecture, Vision
from score.folder.families import FAMILIES, Activation
from score.type_aliases import Json
from score.wording.quoting import shown

_TANH: Activation = "gelu_pytorch_tanh"

_NAMES = {768: "base", 1024: "large", 1152: "so400m", 1536: "giantopt"}  # by width

# Which of timm's models have GELU's approximation by tanh does not depend on whose weights they
# hold: B/32, L/16 at 512 pixels, so400m/16 and giant-opt. transformers' have it everywhere.
_WITH_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")


def _timms(vision: Vision) -> tuple[str, Vision]:
    """The name of timm's model with a SigLIP's image tower, and that tower as timm has it."""
    tower = vision.tower
    name = f"vit_{_NAMES[tower.width]}_patch{vision.patch}_siglip_{vision.image}"
    activation: Activation = _TANH if _WITH_TANH.match(name) else "gelu"
    return name, replace(vision, tower=replace(tower, activation=activation))


TRUNKS: Mapping[str, Vision] = dict(_timms(one.vision) for one in SIGLIP_ARCHITECTURES.values())
"""The image towers, by timm's names."""

# What a SigLIP's configuration has to say: timm's and OpenCLIP's defaults are others.
_REQUIRED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
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
        for key, values in _REQUIRED[name].items():
            if part.get(key) not in values:
                required = " or ".join(shown(value) for value in values if value is not None)
                raise ModelError(
                    f"OpenCLIP's {name}.{key}={shown(part.get(key))}: it must be {required} for "
                    "SigLIP"
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
        raise ModelError(
            f"OpenCLIP's text_cfg.norm_kwargs={shown(options)}: only eps may be set for SigLIP"
        )
    return options.get("eps", 1e-5)
