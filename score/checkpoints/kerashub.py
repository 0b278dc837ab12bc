"""KerasHub's presets of MetaCLIP 2: a folder with `config.json`, `model.weights.h5` and assets.

The names of the configuration are those of `keras_hub.models.MetaCLIP2Backbone` (0.2x and 0.3x), of
the tensors those that Keras 3 gives the layers of that model when it saves them. Nothing here needs
Keras.

Texts are not cleaned: neither KerasHub nor Meta's own code for MetaCLIP 2 does.

In three ways this project follows transformers, OpenCLIP and Meta, whose checkpoints these presets
were converted from, and not KerasHub: texts keep their case (KerasHub's preprocessor lower-cases
them by default); downscaling antialiases (`antialias` is off in KerasHub); and a special token that
is spelled out in a text becomes that token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from score.checkpoints.family import CONFIG
from score.checkpoints.hdf5 import H5
from score.checkpoints.source import Part, Source
from score.errors import ModelError
from score.folder.architecture import Architecture, Transformer
from score.folder.model_folder import LFS_POINTER, is_lfs_pointer, read_json
from score.folder.small_files import read_bytes
from score.images.preprocess import BICUBIC, Preprocessor
from score.images.processors import CLIP_MEAN, CLIP_STD
from score.texts import sentencepiece_model
from score.texts.tokenizer import Tokenizer
from score.texts.xlm_unigram import xlm_tokenizer
from score.type_aliases import Json
from score.wording.quoting import shown

IMAGES = "image_converter.json"
TOKENIZER = "tokenizer.json"
VOCABULARY = Path("assets/tokenizer/vocabulary.spm")

_LARGEST_VOCABULARY = 2**26  # bytes, three times XLM-V's
_LARGEST_NUMBER = 1e6  # largest scale or offset
_CLOSE = 1e-6  # the difference to the published mean that counts as rounding


def folder(path: Path) -> Source:
    """The checkpoint in a preset's folder. Raises ModelError."""
    arch = architecture(read_json(path / CONFIG))
    return Source(
        layout="KerasHub",
        architecture=arch,
        preprocessor=_preprocessor(read_json(path / IMAGES), arch.vision.image),
        tokenizer=_tokenizer(path, arch).to_json(),
        tensors=H5.open(path),
        parts=_parts(arch),
    )


def architecture(config: Json) -> Architecture:
    """What a preset's `config.json` describes. Raises ModelError."""
    backbone = _config(config, "MetaCLIP2Backbone")
    vision = _config(backbone.get("vision_encoder"), "MetaCLIP2VisionEncoder")
    text = _config(backbone.get("text_encoder"), "MetaCLIP2TextEncoder")
    if text.get("embedding_dim") != text.get("hidden_dim"):
        raise ModelError(
            f"the preset's text encoder has embedding_dim {shown(text.get('embedding_dim'))} and "
            f"hidden_dim {shown(text.get('hidden_dim'))}: a plain CLIP's are one"
        )
    return Architecture.from_config(
        {
            "model_type": "metaclip_2",
            "projection_dim": backbone.get("projection_dim"),
            "vision_config": _layers(vision)
            | {"image_size": _side(vision), "patch_size": vision.get("patch_size")},
            "text_config": _layers(text)
            | {
                "vocab_size": text.get("vocabulary_size"),
                "max_position_embeddings": text.get("max_sequence_length"),
            }
            | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
        }
    )


def _config(serialized: object, name: str) -> Json:
    """The configuration of a serialized Keras object, which must be of the class `name`."""
    class_name = serialized.get("class_name") if isinstance(serialized, Mapping) else None
    if not isinstance(serialized, Mapping) or class_name != name:
        raise ModelError(
            f"the preset holds a {str(class_name)[:80]} where a {name} should be; "
            f"of KerasHub's models MetaCLIP 2 is supported"
        )
    config = serialized.get("config")
    if not isinstance(config, Mapping):
        raise ModelError(f"the preset's {name} has no config")
    return config


def _layers(encoder: Json) -> dict[str, Any]:
    names = {
        "hidden_size": "hidden_dim",
        "intermediate_size": "intermediate_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_act": "intermediate_activation",  # Keras' "gelu" is the exact one, as PyTorch's
    }
    return {ours: encoder.get(theirs) for ours, theirs in names.items()} | {"layer_norm_eps": 1e-5}


def _side(vision: Json) -> object:
    shape = vision.get("image_shape")
    if not isinstance(shape, Sequence) or len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
        raise ModelError(f"the preset's image_shape {shown(shape)} is not square in three channels")
    return shape[0]


def _parts(arch: Architecture) -> dict[str, Part]:
    shapes = arch.shapes()

    def same(name: str, source: str) -> tuple[str, Part]:
        return name, Part(source, shapes[name])

    def turned(name: str, source: str) -> tuple[str, Part]:
        return name, Part(source, shapes[name][::-1], Tensor.t)

    def dense(name: str, source: str) -> Iterator[tuple[str, Part]]:
        yield turned(f"{name}.weight", f"{source}/vars/0")
        yield same(f"{name}.bias", f"{source}/vars/1")

    def norm(name: str, source: str) -> Iterator[tuple[str, Part]]:
        yield same(f"{name}.weight", f"{source}/vars/0")
        yield same(f"{name}.bias", f"{source}/vars/1")

    def layers(name: str, source: str, tower: Transformer) -> Iterator[tuple[str, Part]]:
        for number in range(tower.layers):
            ours = f"{name}.encoder.layers.{number}"
            theirs = f"{source}/meta_clip2_encoder_layer" + (f"_{number}" if number else "")
            yield from norm(f"{ours}.layer_norm1", f"{theirs}/layer_norm_1")
            yield from _attention(f"{ours}.self_attn", f"{theirs}/attention", tower)
            yield from norm(f"{ours}.layer_norm2", f"{theirs}/layer_norm_2")
            yield from dense(f"{ours}.mlp.fc1", f"{theirs}/dense_1")
            yield from dense(f"{ours}.mlp.fc2", f"{theirs}/dense_2")

    words, image = "text_model.embeddings", "vision_model.embeddings"
    text, vision = (f"layers/meta_clip2_{tower}_encoder/layers" for tower in ("text", "vision"))
    tokens = f"{text}/token_and_position_embedding"
    patches = f"{vision}/meta_clip2_vision_embedding"
    width, side = arch.vision.tower.width, arch.vision.patch
    return dict(
        [
            same("logit_scale", "layers/meta_clip2_head/vars/0"),
            same(f"{words}.token_embedding.weight", f"{tokens}/token_embedding/vars/0"),
            same(f"{words}.position_embedding.weight", f"{tokens}/position_embedding/vars/0"),
            *layers("text_model", text, arch.text.tower),
            *norm("text_model.final_layer_norm", f"{text}/layer_normalization"),
            turned("text_projection.weight", "layers/dense_1/vars/0"),
            same(f"{image}.class_embedding", f"{patches}/vars/0"),
            (
                f"{image}.patch_embedding.weight",
                Part(f"{patches}/patch_embedding/vars/0", (side, side, 3, width), _channels_first),
            ),
            same(f"{image}.position_embedding.weight", f"{patches}/position_embedding/vars/0"),
            *norm("vision_model.pre_layrnorm", f"{vision}/layer_normalization"),
            *layers("vision_model", vision, arch.vision.tower),
            *norm("vision_model.post_layernorm", "layers/layer_normalization"),
            turned("visual_projection.weight", "layers/dense/vars/0"),
        ]
    )


def _attention(ours: str, theirs: str, tower: Transformer) -> Iterator[tuple[str, Part]]:
    """Keras stores heads apart: input kernels [width, heads, head], output [heads, head, width]."""
    width, heads = tower.width, (tower.heads, tower.width // tower.heads)

    def joined(tensor: Tensor) -> Tensor:
        return tensor.reshape(width, width).t()

    for part, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        source = f"{theirs}/{name}_dense/vars"
        yield f"{ours}.{part}.weight", Part(f"{source}/0", (width, *heads), joined)
        yield f"{ours}.{part}.bias", Part(f"{source}/1", heads, Tensor.flatten)
    source = f"{theirs}/output_dense/vars"
    yield f"{ours}.out_proj.weight", Part(f"{source}/0", (*heads, width), joined)
    yield f"{ours}.out_proj.bias", Part(f"{source}/1", (width,))


def _channels_first(kernel: Tensor) -> Tensor:
    """[height, width, in, out] → [out, in, height, width]."""
    return kernel.permute(3, 2, 0, 1)


def _preprocessor(converter: Json, size: int) -> Preprocessor:
    """`image_converter.json`, whose defaults are those of `keras_hub.layers.ImageConverter`."""
    config = _config(converter, "MetaCLIP2ImageConverter")
    modes = {"bicubic": BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    interpolation = config.get("interpolation", "bilinear")
    if config.get("image_size") != [size, size]:
        raise ModelError(
            f"the preset makes images of {shown(config.get('image_size'))}, its model wants {size}"
        )
    if not isinstance(interpolation, str) or interpolation not in modes:
        raise ModelError(
            f"the preset's interpolation {shown(interpolation)} is not bicubic or bilinear"
        )
    if config.get("pad_to_aspect_ratio", False):
        raise ModelError("the preset pads its images, which no CLIP was trained on")
    squash = not config.get("crop_to_aspect_ratio", True)
    mean, std = _normalisation(config)
    return Preprocessor.from_config(
        {
            "size": {"height": size, "width": size} if squash else size,
            "do_center_crop": not squash,
            "crop_size": size,
            "resample": modes[interpolation],
            "image_mean": mean,
            "image_std": std,
        }
    )


def _normalisation(config: Json) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of values 0…1, from a scale and an offset of values 0…255."""
    scale, offset = _channels(config, "scale"), _channels(config, "offset")
    if min(scale) < 1 / _LARGEST_NUMBER:
        raise ModelError(f"the preset's scale {scale} is not above 0")
    std = [1 / 255 / factor for factor in scale]
    mean = [-shift * deviation for shift, deviation in zip(offset, std, strict=True)]
    for values, published in ((mean, CLIP_MEAN), (std, CLIP_STD)):
        if any(abs(ours - theirs) > _CLOSE for ours, theirs in zip(values, published, strict=True)):
            return mean, std
    return CLIP_MEAN, CLIP_STD


def _channels(config: Json, name: str) -> list[float]:
    """A number for each channel, or one for all. Raises ModelError unless they are finite."""
    value = config.get(name)
    values = value if isinstance(value, list) and len(value) == 3 else [value] * 3
    numbers = [float(n) for n in values if isinstance(n, (int, float)) and abs(n) < _LARGEST_NUMBER]
    if len(numbers) < 3:
        raise ModelError(f"the preset's {name} {shown(value)} is no number for each channel")
    return numbers


def _tokenizer(path: Path, arch: Architecture) -> Tokenizer:
    """XLM-V's, from its vocabulary. Raises ModelError for one that is not this model's."""
    _config(read_json(path / TOKENIZER), "MetaCLIP2Tokenizer")
    file = path / VOCABULARY
    if not file.is_file():
        raise ModelError(f"no {VOCABULARY} in {path}")
    if is_lfs_pointer(file):
        raise ModelError(f"{file} is {LFS_POINTER}")
    model = sentencepiece_model.parse(read_bytes(file, _LARGEST_VOCABULARY))
    # The embeddings have a row for `<mask>`, which neither the file nor KerasHub has.
    mask = arch.text.vocabulary > len(model.pieces) + 4
    try:
        tokenizer = xlm_tokenizer(model.pieces, model.charsmap, mask=mask)
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"unusable {file}: {error}") from error
    texts = Tokenizer(tokenizer, arch.text.context)
    texts.check(arch)
    return texts
