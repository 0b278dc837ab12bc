"""Models of OpenCLIP that are not supported, by name: told from a configuration (`model_cfg`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from score.errors import ModelError
from score.type_aliases import Json
from score.wording.quoting import shown

CONFIG = "open_clip_config.json"
"""The file that holds it."""

SUPPORTED = "OpenCLIP's own ViT with the text tower of CLIP or MetaCLIP 2, and SigLIP"
"""What is supported of OpenCLIP's models."""

# How the names of timm's image towers begin, and what they are.
_TIMM = {
    r"eva": "EVA",
    r"convnext": "ConvNeXt",
    r"fastvit|vit_base_mci": "MobileCLIP",
    r"vit_pe": "Perception Encoder (PE)",
    r"vitamin": "ViTamin",
    r"swin": "Swin",
    r"(?!vit_.*siglip)": "timm",
}


def check_config(config: Json) -> None:
    """Raises ModelError for a configuration (`open_clip_config.json`) of another family."""
    check(object_in(config, "model_cfg"))


def object_in(config: Json, name: str) -> Json:
    """An object in OpenCLIP's configuration. Raises ModelError where there is none."""
    value = config.get(name)
    if not isinstance(value, Mapping):
        raise ModelError(f"the OpenCLIP configuration has no {name}")
    return value


def check(model: Json) -> None:
    """Raises ModelError for a model of another family than those that are supported."""
    vision, text = (_part(model, name) for name in ("vision_cfg", "text_cfg"))
    if model.get("multimodal_cfg"):
        _refuse("CoCa: a decoder that writes captions joins its towers")
    if isinstance(vision.get("layers"), list):
        _refuse("its image tower is a ResNet")
    if name := vision.get("timm_model_name"):
        tower = next((what for start, what in _TIMM.items() if re.match(start, str(name))), None)
        if tower:
            _refuse(f"its image tower is {tower}'s {shown(name)}")
    if name := text.get("hf_model_name"):
        _refuse(f"its text tower is transformers' {shown(name)}")
    if vision.get("timm_model_name") and text.get("proj_type") == "none":
        _refuse("SigLIP so400m i18n: text_cfg.proj_type='none', its texts have no projection")
    if vision.get("no_ln_pre"):
        _refuse("CLIPA: no norm before the layers of its image tower")


def _refuse(what: str) -> None:
    raise ModelError(
        f"this model of OpenCLIP's is not supported: {what}; supported are {SUPPORTED}"
    )


def _part(model: Json, name: str) -> Json:
    value = model.get(name)
    return value if isinstance(value, Mapping) else {}
