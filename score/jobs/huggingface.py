"""A folder in the transformers layout: `config.json` beside safetensors or `pytorch_model.bin`."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from score.architecture import Shape
from score.errors import ModelError
from score.folder import ModelFolder
from score.images import Preprocessor
from score.jobs.source import Pickled, Source, Tensors, unchanged
from score.texts import Texts
from score.weights import FILE, INDEX, Weights, indexed

PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"


def has_weights(path: Path) -> bool:
    """Whether a folder holds weights in this layout."""
    return any((path / name).is_file() for name in (FILE, INDEX, PICKLE, PICKLE_INDEX))


def folder(path: Path) -> Source:
    """The checkpoint in a folder. Raises ModelError."""
    folder = ModelFolder.open(path)
    texts = Texts.load(folder)
    return Source(
        layout="transformers",
        architecture=folder.architecture,
        preprocessor=Preprocessor.from_config(folder.preprocessor),
        tokenizer=texts.to_json(),
        tensors=_tensors(folder.path),
        parts=unchanged(folder.architecture),
        original=folder.path,
        cleaning=texts.cleaning,
    )


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
        files = indexed(folder / PICKLE_INDEX)
        opened = {file: Pickled(file) for file in sorted(set(files.values()))}
        self._shards = {name: opened[file] for name, file in files.items()}

    def names(self) -> list[str]:
        return list(self._shards)

    def shape(self, name: str) -> Shape | None:
        return self._shards[name].shape(name) if name in self._shards else None

    def read(self, name: str) -> Tensor:
        return self._shards[name].read(name)
