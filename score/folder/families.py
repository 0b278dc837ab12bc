"""The families of CLIP models: what a model's towers are made of, and what its `config.json` leaves
unsaid.

Defaults are those of transformers' configuration classes (5.x). Independent of files and torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from score.type_aliases import Json

Kind = Literal["clip", "metaclip_2", "siglip", "chinese_clip"]
Activation = Literal["quick_gelu", "gelu", "gelu_pytorch_tanh"]

ImagePooling = Literal["class", "attention"]
"""How an image tower pools: `class`: a class token before the patches, pooled, normalised and
projected; `attention`: a learned query's attention over the patches, then an MLP (SigLIP)."""

TextPooling = Literal["end", "last", "first"]
"""How a text tower pools: `end`: the end token, which sees what precedes it; `last`: the last token
of a text padded to the context, every token seeing every other, padding included (SigLIP);
`first`: the first token of a BERT, whose norms follow its layers and whose tokens have a type,
every token of a text seeing every other (Chinese CLIP)."""


class Family(NamedTuple):
    """The models of one `model_type`.

    models: transformers' class of the models. images, texts: how the towers pool.
    vision, text: the keys of `vision_config` and `text_config` with their defaults.
    context: most tokens of a text in training, where there are more positions; None elsewhere.
    """

    models: str
    images: ImagePooling
    texts: TextPooling
    vision: Json
    text: Json
    context: int | None = None


_CLIP_VISION: Json = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "image_size": 224,
    "patch_size": 32,
}
_CLIP_TEXT: Json = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}
_SIGLIP: Json = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}

_BERT: Json = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}

FAMILIES: Mapping[Kind, Family] = {
    "clip": Family("CLIPModel", "class", "end", _CLIP_VISION, _CLIP_TEXT),
    "metaclip_2": Family("MetaClip2Model", "class", "end", _CLIP_VISION, _CLIP_TEXT),
    "siglip": Family(
        "SiglipModel",
        "attention",
        "last",
        {**_CLIP_VISION, **_SIGLIP, "patch_size": 16},
        {**_CLIP_TEXT, **_SIGLIP, "vocab_size": 32000, "max_position_embeddings": 64},
    ),
    "chinese_clip": Family("ChineseCLIPModel", "class", "first", _CLIP_VISION, _BERT, 52),
}
"""Each `model_type` that is supported. SigLIP 2's models of one resolution are `siglip`, too."""
