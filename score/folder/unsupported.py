"""Models that are not supported, by name: told from a `config.json` before any weights are read.

Independent of files and torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from score.errors import ModelError
from score.folder.families import FAMILIES
from score.type_aliases import Json
from score.wording.quoting import quoted

SUPPORTED = ", ".join(f"{kind} ({family.models})" for kind, family in FAMILIES.items())
"""The families that are supported, by `model_type` and transformers' class."""

_UNSUPPORTED: Mapping[str, str] = {
    "align": "ALIGN: its image tower is an EfficientNet, its text tower a BERT",
    "altclip": "AltCLIP: its text tower is an XLM-RoBERTa",
    "blip": "BLIP: its text tower reads the image, too",
    "blip-2": "BLIP-2: a query transformer joins its towers",
    "clap": "CLAP: its vectors are of sounds",
    "clip_text_model": "a text tower alone, without the image tower",
    "clip_vision_model": "an image tower alone, without the text tower",
    "clipseg": "CLIPSeg: it marks parts of an image; its towers are those of a CLIP",
    "evaclip": "EVA-CLIP: missing is its image tower, an EVA (in EVA-02: rotary positions, gated "
    "layers)",
    "flava": "FLAVA: a third tower joins the two",
    "groupvit": "GroupViT: its image tower groups patches",
    "jina_clip": "Jina CLIP: it exists as code in a repository on the Hub alone (trust_remote_code)"
    ", which is never run here; missing are its image tower (EVA-02: rotary positions, gated "
    "layers) and its text tower (JinaBERT in v1, XLM-RoBERTa with adapters in v2)",
    "owlvit": "OWL-ViT: it finds objects in an image",
    "siglip2": "SigLIP 2 NaFlex: images of any shape; SigLIP 2's models of one size of image, "
    "whose model_type is siglip, are supported",
    "siglip_text_model": "a text tower alone, without the image tower",
    "siglip_vision_model": "an image tower alone, without the text tower",
    "vision-text-dual-encoder": "two towers of any kind in one model",
    "xclip": "X-CLIP: its vectors are of videos",
}
"""`model_type` → what the model is, and what of it is missing here."""


def check(config: Json) -> None:
    """Raises ModelError, with the list of what is known, for a `config.json` of another family."""
    kind = config.get("model_type")
    if kind is None:
        hint = ""
        if isinstance(config.get("architecture"), str):  # timm's
            hint = f": it is timm's, of the image tower {quoted(config['architecture'])}"
        raise ModelError(f"there is no model_type{hint}; supported are {SUPPORTED}")
    code = _code(config)
    if kind not in tuple(FAMILIES):
        what = f"{kind!r}: {_UNSUPPORTED[kind]}" if kind in tuple(_UNSUPPORTED) else quoted(kind)
        raise ModelError(f"model_type {what}{code} (not supported; supported are {SUPPORTED})")
    if code and FAMILIES[kind].models not in _names(config.get("architectures")):
        raise ModelError(
            f"model_type {kind!r}, but of another class{_class(config)}{code} (not supported; "
            f"supported are {SUPPORTED})"
        )


def _class(config: Json) -> str:
    """What is known of a model by the name of its class; empty for others."""
    for name in _names(config.get("architectures")):
        kind = str(name).removesuffix("Model").lower()
        for known, what in _UNSUPPORTED.items():
            if kind == known.replace("_", "").replace("-", ""):
                return f", {what}"
    return ""


def _code(config: Json) -> str:
    """What is said of a model that comes as code of its own; empty for others."""
    classes = config.get("auto_map")
    if not isinstance(classes, Mapping) or not classes:
        return ""
    named = classes.get("AutoModel") or next(iter(classes.values()))
    return f"; it needs code of its own, {quoted(named)}, and no code of a checkpoint is ever run"


def _names(value: object) -> list[object]:
    return value if isinstance(value, list) else []
