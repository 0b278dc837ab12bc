"""The architecture of a CLIP model: `config.json` → `Architecture`, and back.

Field names and defaults are those of transformers' `CLIPConfig` and `MetaClip2Config`; tensor names
and shapes those of `CLIPModel` and `MetaClip2Model`. Values are checked here, before memory is
allocated for them. Independent of files and torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from score.errors import ModelError
from score.type_aliases import Json
from score.wording.quoting import quoted

Shape = tuple[int, ...]

Kind = Literal["clip", "metaclip_2"]
Activation = Literal["quick_gelu", "gelu"]

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

    @property
    def tokens(self) -> int:
        """Number of tokens: the class token and the patches."""
        return (self.image // self.patch) ** 2 + 1


@dataclass(frozen=True, slots=True)
class Text:
    """The text tower. `context`: maximum tokens of a text; `begin`, `end`, `pad`: token ids."""

    tower: Transformer
    vocabulary: int
    context: int
    begin: int
    end: int
    pad: int


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
        kind = _choice(config, "model_type", get_args(Kind), None)
        vision, text = _tower(config, "vision_config"), _tower(config, "text_config")
        width = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        architecture = cls(
            kind=kind,
            dimension=_size(config, "projection_dim", 512),
            vision=Vision(
                tower=_transformer({**width, **vision}),
                image=_size(vision, "image_size", 224),
                patch=_size(vision, "patch_size", 32),
            ),
            text=Text(
                tower=_transformer(text),
                vocabulary=_size(text, "vocab_size", 49408),
                context=_size(text, "max_position_embeddings", 77, _LONGEST_CONTEXT),
                begin=_id(text, "bos_token_id", 49406),
                end=_id(text, "eos_token_id", 49407),
                pad=_id(text, "pad_token_id", 1),
            ),
        )
        if vision.get("num_channels", 3) != 3:
            raise ModelError(f"num_channels {quoted(vision['num_channels'])}: images have 3")
        if architecture.vision.patch > architecture.vision.image:
            raise ModelError("patch_size is larger than image_size")
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
                "projection_dim": self.dimension,
                **more,
            }

        ids = {
            "bos_token_id": self.text.begin,
            "eos_token_id": self.text.end,
            "pad_token_id": self.text.pad,
        }
        words = {"vocab_size": self.text.vocabulary, "max_position_embeddings": self.text.context}
        image = {"image_size": self.vision.image, "patch_size": self.vision.patch}
        return {
            "architectures": ["CLIPModel" if self.kind == "clip" else "MetaClip2Model"],
            "model_type": self.kind,
            "projection_dim": self.dimension,
            "logit_scale_init_value": 2.6592,  # ln(1/0.07), as transformers rounds it
            "text_config": tower("text", self.text.tower, {**words, **ids}),
            "vision_config": tower("vision", self.vision.tower, image),
        }

    def differences(self, other: Architecture) -> dict[str, tuple[Any, Any]]:
        """Field of a tower's config → its value here and in `other`, where they differ."""
        ours, theirs = self.config(), other.config()
        return {
            f"{part}.{name}": (ours[part][name], value)
            for part in ("vision_config", "text_config")
            for name, value in theirs[part].items()
            if ours[part][name] != value
        }

    @property
    def pools_largest(self) -> bool:
        """Whether a text is pooled at its largest id rather than at its first end token.

        Early CLIP configs, among them most on the Hub, have `eos_token_id` 2 although the end token
        is 49407, the largest id. In MetaCLIP-2's configs, 2 is the end token.
        """
        return self.kind == "clip" and self.text.end == 2

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return _parameters(self)

    def shapes(self) -> dict[str, Shape]:
        """Every tensor's name and shape, in a fixed order."""
        vision, text = self.vision.tower.width, self.text.tower.width
        side = self.vision.patch
        return {
            "logit_scale": (),
            "text_model.embeddings.token_embedding.weight": (self.text.vocabulary, text),
            "text_model.embeddings.position_embedding.weight": (self.text.context, text),
            **dict(_layers("text_model", self.text.tower)),
            **dict(_affine("text_model.final_layer_norm", (text,))),
            "text_projection.weight": (self.dimension, text),
            "vision_model.embeddings.class_embedding": (vision,),
            "vision_model.embeddings.patch_embedding.weight": (vision, 3, side, side),
            "vision_model.embeddings.position_embedding.weight": (self.vision.tokens, vision),
            **dict(_affine("vision_model.pre_layrnorm", (vision,))),  # sic, in transformers
            **dict(_layers("vision_model", self.vision.tower)),
            **dict(_affine("vision_model.post_layernorm", (vision,))),
            "visual_projection.weight": (self.dimension, vision),
        }


@functools.cache  # a plan asks for it with each number of workers and each size of batch
def _parameters(architecture: Architecture) -> int:
    return sum(math.prod(shape) for shape in architecture.shapes().values())


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


def _transformer(config: Json) -> Transformer:
    epsilon = config.get("layer_norm_eps", 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ModelError(f"layer_norm_eps {quoted(epsilon)} is not between 0 and 1")
    tower = Transformer(
        width=_size(config, "hidden_size", 512),
        layers=_size(config, "num_hidden_layers", 12, _MOST_LAYERS),
        heads=_size(config, "num_attention_heads", 8),
        hidden=_size(config, "intermediate_size", 2048),
        activation=_choice(config, "hidden_act", get_args(Activation), "quick_gelu"),
        epsilon=epsilon,
    )
    if tower.width % tower.heads:
        raise ModelError(f"hidden_size {tower.width} is not a multiple of {tower.heads} heads")
    return tower


def _choice(config: Json, name: str, choices: tuple[Any, ...], default: str | None) -> Any:
    value = config.get(name, default)
    if value not in choices:
        raise ModelError(f"{name} {quoted(value)} is not one of {', '.join(choices)}")
    return value


def _size(config: Json, name: str, default: int, most: int = _LARGEST) -> int:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise ModelError(f"{name} {quoted(value)} is not a number from 1 to {most:,}")
    return value


def _id(config: Json, name: str, default: int) -> int:
    value = config.get(name, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise ModelError(f"{name} {quoted(value)} is not a token id")
    return value
