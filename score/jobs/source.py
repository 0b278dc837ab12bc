"""A checkpoint to be packaged, whatever layout it came in: the common shape of all of them.

A layout's module (`huggingface`, `openclip`, `kerashub`) looks at files and says where each tensor
of the canonical model is to be found; `canonical` then reads and writes them one at a time.
Nothing here executes a byte of a checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from score.architecture import Architecture, Shape
from score.cleaning import Cleaning
from score.errors import ModelError
from score.folder import LFS_POINTER, is_lfs_pointer
from score.images import Preprocessor
from score.weights import shown

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

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

    def read(self, name: str) -> Tensor:
        """A tensor in its own precision."""
        ...


class Pickled:
    """The tensors of a `torch.save` file.

    It is read by torch's unpickler for weights, which builds tensors and refuses everything else;
    the bytes stay on disk until a tensor is read. Raises ModelError.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tensors = {
            name.removeprefix("module."): tensor  # as distributed training saves them
            for name, tensor in _state_dict(_unpickled(file), file).items()
        }

    def names(self) -> list[str]:
        """The tensors there are."""
        return list(self._tensors)

    def shape(self, name: str) -> Shape | None:
        """As `Tensors.shape`."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor.dtype not in FLOATS:
            raise ModelError(f"{self._file}: {name} is {tensor.dtype}, no float")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise ModelError(f"{self._file}: {name} is no plain tensor ({tensor.layout})")
        return tuple(tensor.shape)

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`; a view of the file where it could be mapped."""
        return self._tensors[name].detach()


class Part(NamedTuple):
    """Where a canonical tensor comes from.

    source: the tensor in the checkpoint, of shape `shape` there.
    convert: what makes it the canonical one.
    """

    source: str
    shape: Shape
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor


def unchanged(architecture: Architecture) -> dict[str, Part]:
    """Every canonical tensor under its own name."""
    return {name: Part(name, shape) for name, shape in architecture.shapes().items()}


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint, looked at but not read.

    layout: what it is, in words.
    tokenizer: the `tokenizer.json` that makes its token ids.
    parts: for each tensor of `architecture.shapes()` where it comes from.
    original: the folder in the transformers layout, where it is one; the reference reads its
        configuration from there rather than from what we made of it.
    cleaning: what happens to texts before the tokenizer.
    """

    layout: str
    architecture: Architecture
    preprocessor: Preprocessor
    tokenizer: str
    tensors: Tensors
    parts: Mapping[str, Part]
    original: Path | None = None
    cleaning: Cleaning = Cleaning()

    @classmethod
    def own(
        cls, layout: str, architecture: Architecture, tokenizer: str, tensors: Tensors
    ) -> Source:
        """A model of our own making: tensors as they are named here, pictures as CLIP's are."""
        size = architecture.vision.image
        preprocessor = Preprocessor.from_config({"size": size, "crop_size": size})
        parts = unchanged(architecture)
        return cls(layout, architecture, preprocessor, tokenizer, tensors, parts)

    def unused(self) -> list[str]:
        """Tensors that the architecture has no place for; buffers do not count."""
        used = {part.source for part in self.parts.values()}
        return [n for n in self.tensors.names() if n not in used and not n.endswith(_BUFFERS)]

    def check(self) -> None:
        """Raises ModelError unless every tensor is there in the shape that it must have."""
        shapes = {part.source: self.tensors.shape(part.source) for part in self.parts.values()}
        missing = [name for name, shape in shapes.items() if shape is None]
        if missing:
            raise ModelError(
                f"the checkpoint lacks {len(missing)} of the tensors of its architecture, "
                f"such as {missing[0]}"
            )
        for part in self.parts.values():
            if shapes[part.source] != part.shape:
                raise ModelError(
                    f"the checkpoint's {part.source} is {shown(shapes[part.source])}; "
                    f"its architecture wants {shown(part.shape)}"
                )


def _unpickled(file: Path) -> object:
    if is_lfs_pointer(file):
        raise ModelError(f"{file} is {LFS_POINTER}")
    with file.open("rb") as stream:
        head = stream.read(4)
    if not head.startswith((b"PK", b"\x80")):  # a zip, or a bare pickle
        raise ModelError(f"{file} is no torch file: it begins with {head!r}")
    try:
        # Only the zip layout can be mapped; a file of torch before 1.6 is read whole.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols: what cannot be read says so below
            content: object = torch.load(
                file, map_location="cpu", weights_only=True, mmap=head == b"PK\x03\x04"
            )
    except Exception as error:  # torch has no one error for a file that is not what it should be
        raise ModelError(f"{file} {_reason(error)}") from None
    return content


def _reason(error: Exception) -> str:
    text = str(error)
    if "TorchScript" in text:
        return "is a TorchScript archive, which holds code; use a checkpoint that holds weights"
    if "Weights only load failed" in text or "Unsupported" in text:
        what = next(
            (line for line in text.splitlines() if "GLOBAL" in line or "global" in line), ""
        )
        return f"holds more than tensors, and is not executed. {what.strip()[:200]}".rstrip()
    return f"is no whole torch file: {text.splitlines()[0][:200] if text else error!r}"


def _state_dict(content: object, file: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # a training checkpoint, with the optimizer beside it
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{file} holds no tensors by name")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
