"""A source → the canonical folder: config, preprocessor, tokenizer, safetensors.

The layout is transformers' own. Tensors are read, converted and written one shard after the other,
so that a model larger than half the memory can be packaged. The same source gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from score.architecture import Architecture
from score.engines.pytorch import DTYPES
from score.errors import ModelError
from score.jobs.source import Source
from score.texts import Texts
from score.weights import FILE, INDEX

Precision = Literal["fp32", "bf16", "fp16"]

_SHARD = 2 * 2**30  # bytes of tensors in one file, and so at once in memory

# What transformers reads of a tokenizer beside `tokenizer.json`, in terms of what begins and what
# ends a text.
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


def write(source: Source, folder: Path, precision: Precision | None = None) -> Path:
    """Writes a source into `folder`, and returns it.

    `precision`: what the weights are stored in; None leaves them as they are. Raises ModelError for
    a source that is not whole, and for weights that are not finite in that precision.
    """
    source.check()
    folder.mkdir(parents=True, exist_ok=True)
    dtype = _dtype(source, precision)
    config = {**source.architecture.config(), "dtype": str(dtype).removeprefix("torch.")}
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", source.preprocessor.config())
    write_json(folder / "tokenizer_config.json", tokenizer_config(source))
    (folder / "tokenizer.json").write_text(source.tokenizer, encoding="utf-8")
    _write_weights(source, folder, dtype)
    return folder


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file as people like to read it."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_config(source: Source) -> dict[str, Any]:
    """The `tokenizer_config.json` by which transformers reads the same `tokenizer.json`.

    It records the cleaning, too, of which transformers knows nothing.
    """
    clip, context = source.architecture.kind == "clip", source.architecture.text.context
    texts = Texts.parse(source.tokenizer, context)
    vocabulary, (begin, end) = texts.vocabulary(), texts.ends
    tokens = {
        name: token.format(begin=begin, end=end)
        for name, token in (_CLIP_TOKENS if clip else _XLM_TOKENS).items()
    }
    return {
        **{name: token for name, token in tokens.items() if token in vocabulary},
        "model_max_length": context,
        "tokenizer_class": "CLIPTokenizer" if clip else "XLMRobertaTokenizer",
        **source.cleaning.config(),
    }


def _dtype(source: Source, precision: Precision | None) -> torch.dtype:
    if precision:
        return DTYPES[precision]
    # As it comes; one precision for all, since a checkpoint's towers are never of two.
    stored = source.tensors.read(source.parts["visual_projection.weight"].source).dtype
    return torch.float32 if stored == torch.float64 else stored


def _write_weights(source: Source, folder: Path, dtype: torch.dtype) -> None:
    shards = _shards(source.architecture, dtype.itemsize)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        name = FILE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(dict(_tensors(source, names, dtype)), folder / name, {"format": "pt"})
        (folder / name).chmod(0o644)  # safetensors writes for the owner alone; servers are others
        places |= dict.fromkeys(names, name)
    if len(shards) > 1:
        size = dtype.itemsize * sum(map(_count, source.architecture.shapes().values()))
        index = {"metadata": {"total_size": size}, "weight_map": places}
        write_json(folder / INDEX, index)


def _shards(architecture: Architecture, itemsize: int) -> list[list[str]]:
    """The tensors' names, in groups of at most `_SHARD` bytes."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, shape in architecture.shapes().items():
        size = itemsize * _count(shape)
        if groups[-1] and held + size > _SHARD:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _tensors(source: Source, names: list[str], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    shapes = source.architecture.shapes()
    for name in names:
        part = source.parts[name]
        tensor = part.convert(source.tensors.read(part.source)).to(dtype, copy=True).contiguous()
        if tuple(tensor.shape) != shapes[name]:
            raise ModelError(f"{name} became {tuple(tensor.shape)}, not {shapes[name]}")
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{part.source} holds NaN or infinity in {dtype}")
        yield name, tensor


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
