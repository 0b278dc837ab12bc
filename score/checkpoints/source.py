"""`Source`: a checkpoint to be packaged, in the form that all layouts are brought to.

A layout's module (`transformers_layout`, `openclip`, `kerashub`) inspects the files and maps each
tensor of the canonical model to one of the checkpoint; `canonical` then reads and writes them one
at a time. Nothing here executes code from a checkpoint.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from score.checkpoints.restricted_pickle import SpecialTensor, StoredTensor
from score.checkpoints.torch_file import TorchFile
from score.errors import ModelError
from score.folder.architecture import Architecture, Shape
from score.folder.weights import Weights, printable_name, shape_text, tensors_present
from score.images.preprocess import Preprocessor
from score.texts.cleaning import Cleaning
from score.type_aliases import Json

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_DEEPEST = 8  # dictionaries within dictionaries; training code nests two or three
_LONGEST_NAME = 1_000  # characters of a tensor's name, dictionaries around it included
_MOST_VIEWS = 8  # times the file's size, which tensors that share storages may state together

_BUFFERS = ("position_ids", "attn_mask")  # what old checkpoints saved beside their weights


class Tensors(Protocol):
    """Tensors by name, read one at a time."""

    def names(self) -> list[str]:
        """The tensors there are."""
        ...

    def shape(self, name: str) -> Shape | None:
        """A tensor's shape, from its header alone; None where there is no such tensor.

        Raises ModelError for one that is no float.
        """

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor that exists and is a float."""
        ...

    def read(self, name: str) -> Tensor:
        """A tensor in its own precision."""
        ...


class Pickled:
    """The tensors of a `torch.save` file, those of a dictionary within it under `outer.inner`.

    Nothing of its pickle is executed (`restricted_pickle`); the bytes stay on disk until a tensor
    is read. Raises ModelError.
    """

    def __init__(self, path: Path) -> None:
        self._file = TorchFile.open(path)
        self._tensors = _flattened(self._file.content, path)
        if not self._tensors:
            raise ModelError(f"{path} holds no tensors by name")
        tensors = [t for t in self._tensors.values() if isinstance(t, StoredTensor)]
        stated = sum(math.prod(t.shape) * t.dtype.itemsize for t in tensors if t.is_plain)
        if stated > _MOST_VIEWS * path.stat().st_size:
            raise ModelError(
                f"{path} holds tensors of {stated:,} bytes, which are views of the same storages"
            )

    def names(self) -> list[str]:
        """The tensors there are."""
        return list(self._tensors)

    def shape(self, name: str) -> Shape | None:
        """As `Tensors.shape`."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if not isinstance(tensor, StoredTensor) or not tensor.is_plain:
            kind = "expanded" if isinstance(tensor, StoredTensor) else tensor.kind
            raise ModelError(f"{self._file.path}: {name} is no plain tensor ({kind})")
        if tensor.dtype not in FLOATS:
            raise ModelError(f"{self._file.path}: {name} is {tensor.dtype}, no float")
        return tensor.shape

    def dtype(self, name: str) -> torch.dtype:
        """As `Tensors.dtype`."""
        tensor = self._tensors[name]
        assert isinstance(tensor, StoredTensor), f"{name} has no shape"
        return tensor.dtype

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`; a view of the file where it could be mapped."""
        tensor = self._tensors[name]
        assert isinstance(tensor, StoredTensor), f"{name} has no shape"
        return self._file.read(tensor)


def opened(file: Path) -> Tensors:
    """The tensors of one file, safetensors or one of `torch.save`. Raises ModelError."""
    return Weights.of(file) if file.suffix == ".safetensors" else Pickled(file)


class Part(NamedTuple):
    """Where a canonical tensor comes from.

    source: the tensor in the checkpoint, of shape `shape` there.
    convert: its conversion to the canonical tensor.
    rest: where the rest of it comes from, along the first axis, if it is stored as two.
    """

    source: str
    shape: Shape
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor
    rest: Part | None = None

    def pieces(self) -> Iterator[Part]:
        """Itself, and what follows it."""
        yield self
        if self.rest:
            yield from self.rest.pieces()


def unchanged(architecture: Architecture) -> dict[str, Part]:
    """Every canonical tensor under its own name."""
    return {name: Part(name, shape) for name, shape in architecture.shapes().items()}


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint whose headers, but not tensors, have been read.

    layout: what it is, in words.
    tokenizer: the `tokenizer.json` that makes its token ids.
    parts: the source of each tensor of `architecture.shapes()`.
    original: the folder, if it is in the transformers layout.
    tokenizer_folder, processor_file: in that layout, too, the files that `tokenizer` and
        `preprocessor` were read from. Of all three, the reference reads what was made of them where
        they are None.
    remarks: decisions that the user should know of.
    cleaning: of texts, before the tokenizer.
    """

    layout: str
    architecture: Architecture
    preprocessor: Preprocessor
    tokenizer: str
    tensors: Tensors
    parts: Mapping[str, Part]
    original: Path | None = None
    tokenizer_folder: Path | None = None
    processor_file: Path | None = None
    remarks: tuple[str, ...] = ()
    cleaning: Cleaning = Cleaning()

    @classmethod
    def own(
        cls, layout: str, architecture: Architecture, tokenizer: str, tensors: Tensors
    ) -> Source:
        """A model of this project: canonical names of tensors, its family's image processor."""
        size = architecture.vision.image
        config: Json = {"size": size, "crop_size": size}
        cleaning = Cleaning()
        if architecture.kind == "siglip":
            square = {"height": size, "width": size}
            config = {"image_processor_type": "SiglipImageProcessor", "size": square}
            cleaning = Cleaning("siglip")
        return cls(
            layout=layout,
            architecture=architecture,
            preprocessor=Preprocessor.from_config(config),
            tokenizer=tokenizer,
            tensors=tensors,
            parts=unchanged(architecture),
            cleaning=cleaning,
        )

    def unused(self) -> list[str]:
        """Tensors that are not part of the architecture, buffers apart."""
        used = {part.source for part in self._pieces()}
        return [n for n in self.tensors.names() if n not in used and not n.endswith(_BUFFERS)]

    def check(self) -> None:
        """Raises ModelError unless every tensor exists in its shape."""
        shapes = {part.source: self.tensors.shape(part.source) for part in self._pieces()}
        missing = [name for name, shape in shapes.items() if shape is None]
        if missing:
            raise ModelError(
                f"the checkpoint lacks {len(missing)} of the tensors of its architecture, "
                f"such as {missing[0]}; {tensors_present(self.unused(), self.tensors.names())}"
            )
        for part in self._pieces():
            if shapes[part.source] != part.shape:
                raise ModelError(
                    f"the checkpoint's {part.source} is {shape_text(shapes[part.source])}; "
                    f"its architecture wants {shape_text(part.shape)}"
                )

    def read(self, name: str) -> Tensor:
        """A tensor of `architecture.shapes()`, in its own precision."""
        first, *others = (
            part.convert(self.tensors.read(part.source)) for part in self.parts[name].pieces()
        )
        return torch.cat([first, *others]) if others else first

    def dtype(self, name: str) -> torch.dtype:
        """The precision of a tensor of `architecture.shapes()`."""
        dtypes = (self.tensors.dtype(part.source) for part in self.parts[name].pieces())
        return functools.reduce(torch.promote_types, dtypes)

    def _pieces(self) -> Iterator[Part]:
        return (piece for part in self.parts.values() for piece in part.pieces())


def _flattened(content: object, file: Path) -> dict[str, StoredTensor | SpecialTensor]:
    """Tensors by their names; each dictionary, which may be in several places, is read once."""
    tensors: dict[str, StoredTensor | SpecialTensor] = {}
    seen: set[int] = set()
    waiting = [("", content, 0)]
    while waiting:
        prefix, value, depth = waiting.pop()
        if isinstance(value, (StoredTensor, SpecialTensor)) and prefix:
            if prefix in tensors:
                raise ModelError(f"{file} holds {printable_name(prefix)} twice")
            tensors[prefix] = value
        elif isinstance(value, dict) and depth < _DEEPEST and id(value) not in seen:
            seen.add(id(value))
            within = prefix + "." if prefix else ""
            # Reversed, since the stack's last is popped first: this keeps the file's order.
            waiting += [
                (_named(within, key, file), value[key], depth + 1) for key in reversed(value)
            ]
    return tensors


def _named(within: str, key: object, file: Path) -> str:
    name = str(key)
    if len(within) + len(name) > _LONGEST_NAME:
        raise ModelError(
            f"{file} holds a name of over {_LONGEST_NAME:,} characters: {printable_name(name)}"
        )
    return within + name
