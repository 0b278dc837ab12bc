"""A folder in the transformers layout: `config.json` beside safetensors or `pytorch_model.bin`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from score.checkpoints import state_dict, tokenizer_trial
from score.checkpoints.source import Pickled, Source, Tensors, unchanged
from score.checkpoints.state_dict import Names
from score.errors import ModelError
from score.folder.architecture import Architecture, Shape
from score.folder.model_folder import ModelFolder, preprocessor_file
from score.folder.weights import FILE, INDEX, Weights, read_index
from score.images.preprocess import Preprocessor
from score.texts.tokenizer import Tokenizer

NAMES = Names(
    "vision_model.embeddings.patch_embedding.weight",
    (
        "text_model.embeddings.token_embedding.weight",
        "text_model.embeddings.word_embeddings.weight",
    ),
)
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"


def has_weights(files: Collection[str]) -> bool:
    """Whether there are weights in this layout among the files of a folder."""
    return any(name in files for name in (FILE, INDEX, PICKLE, PICKLE_INDEX))


def folder(
    path: Path,
    base: Path | None = None,
    weights: str | None = None,
    tokenizer: Path | None = None,
) -> Source:
    """The checkpoint in a folder. Raises ModelError.

    `base`, `tokenizer`: as in `ModelFolder.open`. `weights`: as in `state_dict.find`.
    """
    folder = ModelFolder.open(path, base, tokenizer)
    text = folder.architecture.text
    tokenizer_trial.check(folder.tokenizer, text.context, pads=text.pads)
    texts = Tokenizer.load(folder)
    model = state_dict.find(_tensors(folder.path), (NAMES,), weights)
    return Source(
        layout="transformers",
        architecture=folder.architecture,
        preprocessor=Preprocessor.from_config(folder.preprocessor),
        tokenizer=texts.to_json(),
        tensors=model.tensors,
        parts=unchanged(folder.architecture),
        original=folder.path,
        # transformers may be unable to open the tokenizer of `--tokenizer` by itself.
        tokenizer_folder=None if tokenizer else folder.tokenizer,
        processor_file=preprocessor_file(folder.path, base),
        remarks=model.remarks,
        cleaning=texts.cleaning,
    )


def file(tensors: Tensors, architecture: Architecture, tokenizer: Tokenizer) -> Source:
    """Bare weights in this layout, of a known architecture, with CLIP's image processor."""
    source = Source.own("transformers", architecture, tokenizer.to_json(), tensors)
    return replace(source, cleaning=tokenizer.cleaning)


def _tensors(folder: Path) -> Tensors:
    if (folder / FILE).is_file() or (folder / INDEX).is_file():
        return Weights.open(folder)
    if (folder / PICKLE).is_file():
        return Pickled(folder / PICKLE)
    if (folder / PICKLE_INDEX).is_file():
        return _Shards(folder)
    raise ModelError(f"no weights in {folder}: neither {FILE} nor {PICKLE}, nor an index of either")


class _Shards:
    """`pytorch_model-00001-of-….bin`, as an index lists them."""

    def __init__(self, folder: Path) -> None:
        files = read_index(folder / PICKLE_INDEX)
        opened = {file: Pickled(file) for file in sorted(set(files.values()))}
        self._shards = {name: opened[file] for name, file in files.items()}

    def names(self) -> list[str]:
        return list(self._shards)

    def shape(self, name: str) -> Shape | None:
        return self._shards[name].shape(name) if name in self._shards else None

    def dtype(self, name: str) -> torch.dtype:
        return self._shards[name].dtype(name)

    def read(self, name: str) -> Tensor:
        return self._shards[name].read(name)
