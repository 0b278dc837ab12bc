"""The architecture of a CLIP model: `config.json` → `Architecture`, and back.

Field names and defaults are those of transformers' `CLIPConfig`, `MetaClip2Config`, `SiglipConfig`
and `ChineseCLIPConfig`. Values are checked here, before memory is allocated for them. Independent
of files and torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from score.errors import ModelError
from score.folder import unsupported
from score.folder.families import FAMILIES, Activation, Family, ImagePooling, Kind, TextPooling
from score.type_aliases import Json
from score.wording.quoting import quoted

Shape = tuple[int, ...]

_LARGEST = 2**24  # of any size in a config: more than ten times the largest known vocabulary
_MOST_LAYERS = 1024
_LONGEST_CONTEXT = 2**16  # tokens; published models have 77 to 248


@dataclass(frozen=True, slots=True)
class Transformer:
    """One tower's stack of layers."""

    width: int
    layers: int
    heads: int
    hidden: int  # width of the hidden layer of each perceptron (MLP)
    activation: Activation
    epsilon: float = 1e-5  # of the layer norms


@dataclass(frozen=True, slots=True)
class Vision:
    """The image tower: square images, cut into square patches; sizes in pixels."""

    tower: Transformer
    image: int
    patch: int
    pooling: ImagePooling = "class"

    @property
    def tokens(self) -> int:
        """Number of tokens: the patches, and the class token where there is one."""
        return (self.image // self.patch) ** 2 + (self.pooling == "class")


@dataclass(frozen=True, slots=True)
class Text:
    """The text tower.

    context: maximum tokens of a text; begin, end, pad: token ids; positions: number of positions
    that have an embedding; types: of tokens, which a BERT has.
    """

    tower: Transformer
    vocabulary: int
    context: int
    begin: int
    end: int
    pad: int
    pooling: TextPooling = "end"
    positions: int = 0  # 0: as many as the context
    types: int = 0

    @property
    def pads(self) -> bool:
        """Whether every text is padded to the context, and the padding takes part."""
        return self.pooling == "last"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A CLIP model without its weights. `dimension`: length of its vectors."""

    kind: Kind
    dimension: int
    vision: Vision
    text: Text

    @classmethod
    def from_config(cls, config: Json) -> Architecture:
        """From the content of a `config.json`, old key names included. Raises ModelError."""
        unsupported.check(config)
        kind: Kind = config["model_type"]
        family = FAMILIES[kind]
        vision = {**family.vision, **_tower(config, "vision_config")}
        text = {**family.text, **_tower(config, "text_config")}
        architecture = cls(
            kind=kind,
            dimension=_dimension(config, family, text),
            vision=Vision(
                tower=_transformer(vision),
                image=_size(vision, "image_size"),
                patch=_size(vision, "patch_size"),
                pooling=family.images,
            ),
            text=Text(
                tower=_transformer(text),
                vocabulary=_size(text, "vocab_size"),
                **_lengths(text, family),
                begin=_id(text, "bos_token_id", family.text),
                end=_id(text, "eos_token_id", family.text),
                pad=_id(text, "pad_token_id", family.text),
                pooling=family.texts,
            ),
        )
        if vision.get("num_channels", 3) != 3:
            raise ModelError(f"num_channels {quoted(vision['num_channels'])}: images have 3")
        if architecture.vision.patch > architecture.vision.image:
            raise ModelError("patch_size is larger than image_size")
        if family.images == "attention":
            _check_attention_pooling(architecture, vision)
        return architecture

    def config(self) -> dict[str, Any]:
        """The content of a `config.json` for this architecture, with every value explicit."""

        def tower(name: str, tower: Transformer, more: Json) -> dict[str, Any]:
            return {
                "model_type": f"{self.kind}_{name}_model",
                "hidden_size": tower.width,
                "intermediate_size": tower.hidden,
                "num_hidden_layers": tower.layers,
                "num_attention_heads": tower.heads,
                "hidden_act": tower.activation,
                "layer_norm_eps": tower.epsilon,
                **more,
            }

        ids = {
            "bos_token_id": self.text.begin,
            "eos_token_id": self.text.end,
            "pad_token_id": self.text.pad,
        }
        words = {
            "vocab_size": self.text.vocabulary,
            "max_position_embeddings": self.text.positions or self.text.context,
            **({"type_vocab_size": self.text.types} if self.text.types else {}),
        }
        image = {"image_size": self.vision.image, "patch_size": self.vision.patch}
        size = {"projection_dim": self.dimension}
        whole: Json = {**size, "logit_scale_init_value": 2.6592}  # ln(1/0.07), transformers' figure
        text, vision = {**size, **words, **ids}, {**size, **image}
        if self.text.pads:
            whole, vision = {}, image
            text = {"projection_size": self.dimension, **words, **ids}
        return {
            "architectures": [FAMILIES[self.kind].models],
            "model_type": self.kind,
            **whole,
            "text_config": tower("text", self.text.tower, text),
            "vision_config": tower("vision", self.vision.tower, vision),
        }

    def differences(self, other: Architecture) -> dict[str, tuple[Any, Any]]:
        """Field of a tower's config → its value here and in `other`, where they differ.

        Of models of two families, `model_type` alone: their configs have other fields.
        """
        if self.kind != other.kind:
            return {"model_type": (self.kind, other.kind)}
        ours, theirs = self.config(), other.config()
        return {
            f"{part}.{name}": (ours[part].get(name), value)
            for part in ("vision_config", "text_config")
            for name, value in theirs[part].items()
            if ours[part].get(name) != value
        }

    @property
    def pools_largest(self) -> bool:
        """Whether a text is pooled at its largest id rather than at its first end token.

        Early CLIP configs, among them most on the Hub, have `eos_token_id` 2 although the end token
        is 49407, the largest id. In MetaCLIP-2's configs, 2 is the end token.
        """
        return self.kind == "clip" and self.text.end == 2

    @property
    def has_bias(self) -> bool:
        """Whether a bias is added to an image's and a text's scaled cosine, whose sigmoid is the
        probability that they belong together, each text by itself."""
        return self.vision.pooling == "attention"

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return _parameters(self)

    def shapes(self) -> dict[str, Shape]:
        """Every tensor's name and shape, in a fixed order."""
        scalar = (1,) if self.has_bias else ()
        return {
            "logit_scale": scalar,
            **dict(_text_tower(self.text, self.dimension)),
            **dict(_image_tower(self.vision, self.dimension)),
            **({"logit_bias": scalar} if self.has_bias else {}),
        }


@functools.cache  # a plan asks for it with each number of workers and each size of batch
def _parameters(architecture: Architecture) -> int:
    return sum(math.prod(shape) for shape in architecture.shapes().values())


def _text_tower(text: Text, dimension: int) -> Iterator[tuple[str, Shape]]:
    width = text.tower.width
    if text.pooling == "first":
        yield from _bert(text)
        yield "text_projection.weight", (dimension, width)
        return
    yield "text_model.embeddings.token_embedding.weight", (text.vocabulary, width)
    yield "text_model.embeddings.position_embedding.weight", (text.context, width)
    yield from _layers("text_model", text.tower)
    yield from _affine("text_model.final_layer_norm", (width,))
    if text.pooling == "end":
        yield "text_projection.weight", (dimension, width)
    else:
        yield from _affine("text_model.head", (dimension, width))


def _bert(text: Text) -> Iterator[tuple[str, Shape]]:
    """BERT's embeddings and layers, by transformers' names."""
    width, hidden, embeddings = text.tower.width, text.tower.hidden, "text_model.embeddings"
    yield f"{embeddings}.word_embeddings.weight", (text.vocabulary, width)
    yield f"{embeddings}.position_embeddings.weight", (text.positions, width)
    yield f"{embeddings}.token_type_embeddings.weight", (text.types, width)
    yield from _affine(f"{embeddings}.LayerNorm", (width,))
    for number in range(text.tower.layers):
        layer = f"text_model.encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _affine(f"{layer}.attention.{part}", (width, width))
        yield from _affine(f"{layer}.attention.output.LayerNorm", (width,))
        yield from _affine(f"{layer}.intermediate.dense", (hidden, width))
        yield from _affine(f"{layer}.output.dense", (width, hidden))
        yield from _affine(f"{layer}.output.LayerNorm", (width,))


def _image_tower(vision: Vision, dimension: int) -> Iterator[tuple[str, Shape]]:
    width, hidden, side = vision.tower.width, vision.tower.hidden, vision.patch
    embeddings, classes = "vision_model.embeddings", vision.pooling == "class"
    if classes:
        yield f"{embeddings}.class_embedding", (width,)
    yield f"{embeddings}.patch_embedding.weight", (width, 3, side, side)
    if not classes:
        yield f"{embeddings}.patch_embedding.bias", (width,)
    yield f"{embeddings}.position_embedding.weight", (vision.tokens, width)
    if classes:
        yield from _affine("vision_model.pre_layrnorm", (width,))  # sic, in transformers
    yield from _layers("vision_model", vision.tower)
    yield from _affine("vision_model.post_layernorm", (width,))
    if classes:
        yield "visual_projection.weight", (dimension, width)
        return
    head = "vision_model.head"
    yield f"{head}.probe", (1, 1, width)
    yield f"{head}.attention.in_proj_weight", (3 * width, width)
    yield f"{head}.attention.in_proj_bias", (3 * width,)
    yield from _affine(f"{head}.attention.out_proj", (width, width))
    yield from _affine(f"{head}.layernorm", (width,))
    yield from _affine(f"{head}.mlp.fc1", (hidden, width))
    yield from _affine(f"{head}.mlp.fc2", (width, hidden))


def _layers(prefix: str, tower: Transformer) -> Iterator[tuple[str, Shape]]:
    width, hidden = tower.width, tower.hidden
    for number in range(tower.layers):
        layer = f"{prefix}.encoder.layers.{number}"
        yield from _affine(f"{layer}.layer_norm1", (width,))
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine(f"{layer}.self_attn.{part}", (width, width))
        yield from _affine(f"{layer}.layer_norm2", (width,))
        yield from _affine(f"{layer}.mlp.fc1", (hidden, width))
        yield from _affine(f"{layer}.mlp.fc2", (width, hidden))


def _affine(prefix: str, weight: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", weight
    yield f"{prefix}.bias", weight[:1]


def _tower(config: Json, name: str) -> Json:
    """A tower's part of the config; `…_config_dict`, in old configs, takes precedence."""
    part = config.get(f"{name}_dict") or config.get(name) or {}
    if not isinstance(part, Mapping):
        raise ModelError(f"{name} must be an object")
    return part


def _lengths(text: Json, family: Family) -> dict[str, int]:
    """Of the text tower: its context, and of a BERT its positions and types of tokens."""
    positions = _size(text, "max_position_embeddings", _LONGEST_CONTEXT)
    if family.texts != "first":
        return {"context": positions}
    if text.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError("position_embedding_type is not absolute")
    context = min(positions, family.context or positions)
    return {"context": context, "positions": positions, "types": _size(text, "type_vocab_size")}


def _dimension(config: Json, family: Family, text: Json) -> int:
    """The length of vectors; of SigLIP's that of the text tower's projection."""
    if family.texts != "last":
        return _size({"projection_dim": 512, **config}, "projection_dim")
    key = "hidden_size" if text.get("projection_size") is None else "projection_size"
    return _size(text, key)


def _check_attention_pooling(architecture: Architecture, vision: Json) -> None:
    """Raises ModelError unless the pooled vectors of images are as long as those of texts."""
    if vision.get("vision_use_head", True) is not True:
        raise ModelError("vision_use_head is off: without its head the image tower has no vector")
    width = architecture.vision.tower.width
    if architecture.dimension != width:
        raise ModelError(
            f"vectors of texts have {architecture.dimension} numbers, those of images {width}"
        )


def _transformer(config: Json) -> Transformer:
    epsilon = config["layer_norm_eps"]
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ModelError(f"layer_norm_eps {quoted(epsilon)} is not between 0 and 1")
    tower = Transformer(
        width=_size(config, "hidden_size"),
        layers=_size(config, "num_hidden_layers", _MOST_LAYERS),
        heads=_size(config, "num_attention_heads"),
        hidden=_size(config, "intermediate_size"),
        activation=_choice(config, "hidden_act", get_args(Activation)),
        epsilon=epsilon,
    )
    if tower.width % tower.heads:
        raise ModelError(f"hidden_size {tower.width} is not a multiple of {tower.heads} heads")
    return tower


def _choice(config: Json, name: str, choices: tuple[Any, ...]) -> Any:
    value = config.get(name)
    if value not in choices:
        raise ModelError(f"{name} {quoted(value)} is not one of {', '.join(choices)}")
    return value


def _size(config: Json, name: str, most: int = _LARGEST) -> int:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise ModelError(f"{name} {quoted(value)} is not a number from 1 to {most:,}")
    return value


def _id(config: Json, name: str, defaults: Json) -> int:
    value = config[name]
    if value is None:
        value = defaults[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise ModelError(f"{name} {quoted(value)} is not a token id")
    return value
