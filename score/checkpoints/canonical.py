"""A source → the canonical model folder: config, preprocessor, tokenizer, safetensors.

The layout is transformers' own. Tensors are read, converted and written one shard after the other,
so that a model larger than half the memory can be packaged. The same source gives the same bytes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from score.checkpoints.source import Source
from score.errors import ModelError
from score.folder.weights import FILE, INDEX
from score.model.engines.pytorch import DTYPES
from score.texts import wordpiece
from score.texts.tokenizer import Tokenizer
from score.type_aliases import FloatPrecision

Dtypes = Mapping[str, torch.dtype]
"""Tensor → what it is stored in."""

_SHARD = 2 * 2**30  # bytes of tensors in one file, hence in memory at once

# The special tokens that transformers reads from `tokenizer_config.json`; {begin} and {end} are the
# tokens around a text.
_CLIP_TOKENS = {
    "bos_token": "{begin}",
    "eos_token": "{end}",
    "pad_token": "{end}",
    "unk_token": "{end}",
}
_XLM_TOKENS = {
    "bos_token": "{begin}",
    "cls_token": "{begin}",
    "eos_token": "{end}",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "sep_token": "{end}",
    "unk_token": "<unk>",
}
_SIGLIP_TOKENS = {"eos_token": "{end}", "unk_token": "<unk>"}


def write(source: Source, folder: Path, precision: FloatPrecision | None = None) -> Path:
    """Writes a source into `folder`, and returns it.

    `precision`: of the stored weights; None keeps each tensor's own. Raises ModelError for an
    incomplete source, and for weights that are not finite in that precision.
    """
    source.check()
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = _dtypes(source, precision)
    # transformers loads all of a model in the precision that its config.json states.
    widest = functools.reduce(torch.promote_types, dtypes.values())
    config = {**source.architecture.config(), "dtype": str(widest).removeprefix("torch.")}
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", source.preprocessor.config())
    write_json(folder / "tokenizer_config.json", tokenizer_config(source))
    (folder / "tokenizer.json").write_text(source.tokenizer, encoding="utf-8")
    _write_weights(source, folder, dtypes)
    return folder


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, indented, with characters beyond ASCII as they are."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_config(source: Source) -> dict[str, Any]:
    """The `tokenizer_config.json` by which transformers reads the same `tokenizer.json`.

    It also records the cleaning of texts, which transformers ignores.
    """
    text = source.architecture.text
    texts = Tokenizer.parse(source.tokenizer, text.context, pads=text.pads)
    vocabulary, (begin, end) = texts.vocabulary(), texts.ends or ("", "")
    named, name_of_class = _class(source, texts)
    tokens = {name: token.format(begin=begin, end=end) for name, token in named.items()}
    return {
        **{name: token for name, token in tokens.items() if token in vocabulary},
        **(texts.padding.config() if texts.padding else {}),
        "model_max_length": text.context,
        "tokenizer_class": name_of_class,
        **source.cleaning.config(),
    }


def _class(source: Source, texts: Tokenizer) -> tuple[Mapping[str, str], str]:
    """The named tokens of a tokenizer, and transformers' class that reads it."""
    kind = source.architecture.kind
    if kind == "clip":
        return _CLIP_TOKENS, "CLIPTokenizer"
    if kind == "metaclip_2":
        return _XLM_TOKENS, "XLMRobertaTokenizer"
    if kind == "chinese_clip":
        return wordpiece.NAMES, "BertTokenizer"
    # SiglipTokenizer reads no tokenizer.json.
    return _SIGLIP_TOKENS, "Siglip2Tokenizer" if texts.byte_pairs else "PreTrainedTokenizerFast"


def _dtypes(source: Source, precision: FloatPrecision | None) -> Dtypes:
    """The dtype in which each tensor is stored.

    Mixed dtypes are common: OpenAI's own `convert_weights` leaves norms and embeddings in fp32.
    """
    if precision:
        return dict.fromkeys(source.parts, DTYPES[precision])
    return {name: source.dtype(name) for name in source.parts}


def _write_weights(source: Source, folder: Path, dtypes: Dtypes) -> None:
    shapes = source.architecture.shapes()
    sizes = {name: dtypes[name].itemsize * _count(shape) for name, shape in shapes.items()}
    shards = _shards(sizes)
    file_of: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        name = FILE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(dict(_tensors(source, names, dtypes)), folder / name, {"format": "pt"})
        (folder / name).chmod(0o644)  # safetensors' 0600 keeps servers out, which are other users
        file_of |= dict.fromkeys(names, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": file_of}
        write_json(folder / INDEX, index)


def _shards(sizes: Mapping[str, int]) -> list[list[str]]:
    """The names of tensors of these sizes in bytes, in groups of at most `_SHARD` bytes."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if groups[-1] and held + size > _SHARD:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _tensors(source: Source, names: list[str], dtypes: Dtypes) -> Iterator[tuple[str, Tensor]]:
    shapes = source.architecture.shapes()
    for name in names:
        tensor = source.read(name).to(dtypes[name], copy=True).contiguous()
        if tuple(tensor.shape) != shapes[name]:
            raise ModelError(f"{name} became {tuple(tensor.shape)}, not {shapes[name]}")
        if not torch.isfinite(tensor).all():
            stored = source.parts[name].source
            raise ModelError(f"{stored} holds NaN or infinity in {dtypes[name]}")
        yield name, tensor


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
