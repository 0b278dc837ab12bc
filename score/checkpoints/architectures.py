"""The architectures of known checkpoints, by OpenCLIP's names where it has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from score.folder.architecture import Architecture, Text, Transformer, Vision
from score.folder.families import Activation, Kind

CLIP_VOCABULARY = 49408  # 256 bytes, twice; 48,894 merges; begin and end (openai/CLIP)
CLIP_TOKENIZER = Path(__file__).parent / "data" / "clip"
"""Where the `tokenizer.json` of all CLIPs here but MetaCLIP 2 lies, and its licence."""

# (width, layers, heads, MLP) of each tower, and the dimension of vectors.
_BASE = (768, 12, 12, 3072), (512, 12, 8, 2048), 512
_LARGE = (1024, 24, 16, 4096), (768, 12, 12, 3072), 768
_HUGE = (1280, 32, 16, 5120), (1024, 24, 16, 4096), 1024
_GIANT = (1408, 40, 16, 6144), (1024, 24, 16, 4096), 1024
_BIG_G = (1664, 48, 16, 8192), (1280, 32, 20, 5120), 1280

_Towers = tuple[tuple[int, int, int, int], tuple[int, int, int, int], int]


def _architecture(
    towers: _Towers, patch: int, image: int, activation: Activation, kind: Kind = "clip"
) -> Architecture:
    vision, text, dimension = towers
    # CLIP's byte pairs, or XLM-V's pieces with fairseq's `<s> <pad> </s>` before them.
    words, begin, end = (CLIP_VOCABULARY, 49406, 49407) if kind == "clip" else (901629, 0, 2)
    return Architecture(
        kind=kind,
        dimension=dimension,
        vision=Vision(Transformer(*vision, activation), image, patch),
        text=Text(Transformer(*text, activation), words, 77, begin, end, 1),
    )


_SHAPES: Mapping[str, tuple[_Towers, int, int, Kind]] = {
    "ViT-B-32": (_BASE, 32, 224, "clip"),
    "ViT-B-32-256": (_BASE, 32, 256, "clip"),
    "ViT-B-16": (_BASE, 16, 224, "clip"),
    "ViT-L-14": (_LARGE, 14, 224, "clip"),
    "ViT-L-14-336": (_LARGE, 14, 336, "clip"),
    "ViT-H-14": (_HUGE, 14, 224, "clip"),
    "ViT-H-14-378": (_HUGE, 14, 378, "clip"),
    "ViT-g-14": (_GIANT, 14, 224, "clip"),
    "ViT-bigG-14": (_BIG_G, 14, 224, "clip"),
    "ViT-H-14-worldwide": (_HUGE, 14, 224, "metaclip_2"),
    "ViT-H-14-worldwide-378": (_HUGE, 14, 378, "metaclip_2"),
    "ViT-bigG-14-worldwide": (_BIG_G, 14, 224, "metaclip_2"),
    "ViT-bigG-14-worldwide-378": (_BIG_G, 14, 378, "metaclip_2"),
}

_ACTIVATIONS: Mapping[str, Activation] = {"": "gelu", "-quickgelu": "quick_gelu"}

ARCHITECTURES: Mapping[str, Architecture] = {
    f"{name}{suffix}": _architecture(towers, patch, image, activation, kind)
    for name, (towers, patch, image, kind) in _SHAPES.items()
    for suffix, activation in _ACTIVATIONS.items()
}
"""Architectures by OpenCLIP's names: `ViT-B-32` has plain GELU, `ViT-B-32-quickgelu` QuickGELU."""

# (width, layers, heads, MLP) of SigLIP's towers; those of its text tower are the image tower's,
# but for giant-opt.
_SIGLIP_BASE = (768, 12, 12, 3072)
_SIGLIP_LARGE = (1024, 24, 16, 4096)
_SIGLIP_SO400M = (1152, 27, 16, 4304)
_SIGLIP_GIANT = (1536, 40, 16, 6144)

_Sizes = tuple[int, int, int, int]

# Texts have 64 tokens, but for one of the first models.
_SHORT_TEXTS = {"ViT-SO400M-14-SigLIP-224": 16}


def _siglip(
    vision: _Sizes, text: _Sizes, patch: int, image: int, words: int, context: int
) -> Architecture:
    activation: Activation = "gelu_pytorch_tanh"
    epsilon = 1e-6
    return Architecture(
        kind="siglip",
        dimension=vision[0],
        vision=Vision(Transformer(*vision, activation, epsilon), image, patch, pooling="attention"),
        # transformers' begin and end ids are CLIP's, and decide nothing.
        text=Text(
            Transformer(*text, activation, epsilon), words, context, 49406, 49407, 1, pooling="last"
        ),
    )


_SIGLIPS: Mapping[str, tuple[_Sizes, _Sizes, int, tuple[int, ...], tuple[int, ...]]] = {
    "ViT-B-16": (_SIGLIP_BASE, _SIGLIP_BASE, 16, (224, 256, 384, 512), (224, 256, 384, 512)),
    "ViT-B-32": (_SIGLIP_BASE, _SIGLIP_BASE, 32, (), (256,)),
    "ViT-L-16": (_SIGLIP_LARGE, _SIGLIP_LARGE, 16, (256, 384), (256, 384, 512)),
    "ViT-SO400M-14": (_SIGLIP_SO400M, _SIGLIP_SO400M, 14, (224, 384), (224, 378, 384)),
    "ViT-SO400M-16": (_SIGLIP_SO400M, _SIGLIP_SO400M, 16, (), (256, 384, 512)),
    "ViT-gopt-16": (_SIGLIP_GIANT, _SIGLIP_SO400M, 16, (), (256, 384)),
}

SIGLIP_ARCHITECTURES: Mapping[str, Architecture] = {
    (full := f"{name}-SigLIP{number}-{image}"): _siglip(
        vision, text, patch, image, words, _SHORT_TEXTS.get(full, 64)
    )
    for name, (vision, text, patch, first, second) in _SIGLIPS.items()
    for number, images, words in (("", first, 32_000), ("2", second, 256_000))
    for image in images
}
"""SigLIP's and SigLIP 2's, named as OpenCLIP's, but always with the side of an image in pixels."""

# RoBERTa-wwm-ext's sizes.
_BERT_BASE = (768, 12, 12, 3072)
_BERT_LARGE = (1024, 24, 16, 4096)


def _chinese(towers: _Towers, text: _Sizes, patch: int, image: int) -> Architecture:
    vision, _, dimension = towers
    return Architecture(
        kind="chinese_clip",
        dimension=dimension,
        vision=Vision(Transformer(*vision, "quick_gelu"), image, patch),
        # transformers' begin and end ids decide nothing: the tokenizer has its own.
        text=Text(
            Transformer(*text, "gelu", 1e-12), 21_128, 52, 0, 0, 0, "first", positions=512, types=2
        ),
    )


CHINESE_ARCHITECTURES: Mapping[str, Architecture] = {
    "chinese-ViT-B-16": _chinese(_BASE, _BERT_BASE, 16, 224),
    "chinese-ViT-L-14": _chinese(_LARGE, _BERT_BASE, 14, 224),
    "chinese-ViT-L-14-336": _chinese(_LARGE, _BERT_BASE, 14, 336),
    "chinese-ViT-H-14": _chinese(_HUGE, _BERT_LARGE, 14, 224),
}
"""Chinese CLIP's, by the names of their image towers."""

ALL_ARCHITECTURES: Mapping[str, Architecture] = {
    **ARCHITECTURES,
    **SIGLIP_ARCHITECTURES,
    **CHINESE_ARCHITECTURES,
}
"""All of them."""
