"""A folder in the transformers layout: `config.json` beside safetensors or `pytorch_model.bin`."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from score.architecture import Shape
from score.errors import ModelError
from score.folder import ModelFolder
from score.images import Preprocessor
from score.jobs.source import Part, Pickled, Source, Tensors
from score.texts import Texts
from score.weights import FILE, INDEX, Weights

PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"


def has_weights(path: Path) -> bool:
    """Whether a folder holds weights in this layout."""
    return any((path / name).is_file() for name in (FILE, INDEX, PICKLE, PICKLE_INDEX))


def folder(path: Path) -> Source:
    """The checkpoint in a folder. Raises ModelError."""
    folder = ModelFolder.open(path)
    return Source(
        layout="transformers",
        architecture=folder.architecture,
        preprocessor=Preprocessor.from_config(folder.preprocessor),
        tokenizer=Texts.load(folder).to_json(),
        tensors=_tensors(folder.path),
        parts={name: Part(name, shape) for name, shape in folder.architecture.shapes().items()},
        original=folder.path,
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
        try:
            places = json.loads((folder / PICKLE_INDEX).read_text("utf-8"))["weight_map"]
            files = dict.fromkeys(map(str, places.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"cannot read {folder / PICKLE_INDEX}: {error!r}") from error
        self._shards: list[Pickled] = []
        for file in files:
            if Path(file).name != file:
                raise ModelError(
                    f"{folder / PICKLE_INDEX} names a file outside its folder: {file[:200]!r}"
                )
            if not (folder / file).is_file():
                raise ModelError(f"{folder} lacks {file}, which its index names: half a download?")
            self._shards.append(Pickled(folder / file))

    def _shard(self, name: str) -> Pickled | None:
        return next((shard for shard in self._shards if name in shard.names()), None)

    def shape(self, name: str) -> Shape | None:
        shard = self._shard(name)
        return shard.shape(name) if shard else None

    def read(self, name: str) -> Tensor:
        shard = self._shard(name)
        assert shard, f"{name} was not looked for"
        return shard.read(name)
