"""`Source`: a checkpoint to be packaged, in the form that all layouts are brought to.

A layout's module (`transformers_layout`, `openclip`, `kerashub`) inspects the files and maps each
tensor of the canonical model to one of the checkpoint; `canonical` then reads and writes them one
at a time. Nothing here executes code from a checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from score.errors import ModelError
from score.folder.architecture import Architecture, Shape
from score.folder.model_folder import LFS_POINTER, is_lfs_pointer
from score.folder.weights import Weights, printable_name, shape_text, tensors_present
from score.images.preprocess import Preprocessor
from score.texts.cleaning import Cleaning

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_DEEPEST = 8  # dictionaries within dictionaries; training code nests two or three
_RESAVE = "where you trust it, load it with torch, and save the model's state_dict() alone"

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

    It is read by torch's unpickler for weights, which builds tensors and refuses everything else;
    the bytes stay on disk until a tensor is read. Raises ModelError.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tensors = _flattened(_unpickled(file), file)
        if not self._tensors:
            raise ModelError(f"{file} holds no tensors by name")

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

    def dtype(self, name: str) -> torch.dtype:
        """As `Tensors.dtype`."""
        return self._tensors[name].dtype

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`; a view of the file where it could be mapped."""
        return self._tensors[name].detach()


def opened(file: Path) -> Tensors:
    """The tensors of one file, safetensors or one of `torch.save`. Raises ModelError."""
    return Weights.of(file) if file.suffix == ".safetensors" else Pickled(file)


class Part(NamedTuple):
    """Where a canonical tensor comes from.

    source: the tensor in the checkpoint, of shape `shape` there.
    convert: its conversion to the canonical tensor.
    """

    source: str
    shape: Shape
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor


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
        """A model of this project: canonical names of tensors, CLIP's image processor."""
        size = architecture.vision.image
        preprocessor = Preprocessor.from_config({"size": size, "crop_size": size})
        parts = unchanged(architecture)
        return cls(layout, architecture, preprocessor, tokenizer, tensors, parts)

    def unused(self) -> list[str]:
        """Tensors that are not part of the architecture, buffers apart."""
        used = {part.source for part in self.parts.values()}
        return [n for n in self.tensors.names() if n not in used and not n.endswith(_BUFFERS)]

    def check(self) -> None:
        """Raises ModelError unless every tensor exists in its shape."""
        shapes = {part.source: self.tensors.shape(part.source) for part in self.parts.values()}
        missing = [name for name, shape in shapes.items() if shape is None]
        if missing:
            raise ModelError(
                f"the checkpoint lacks {len(missing)} of the tensors of its architecture, "
                f"such as {missing[0]}; {tensors_present(self.unused(), self.tensors.names())}"
            )
        for part in self.parts.values():
            if shapes[part.source] != part.shape:
                raise ModelError(
                    f"the checkpoint's {part.source} is {shape_text(shapes[part.source])}; "
                    f"its architecture wants {shape_text(part.shape)}"
                )

    def read(self, name: str) -> Tensor:
        """A tensor of `architecture.shapes()`, in its own precision."""
        part = self.parts[name]
        return part.convert(self.tensors.read(part.source))


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
            warnings.simplefilter("ignore")  # of old protocols: an error follows below
            content: object = torch.load(
                file, map_location="cpu", weights_only=True, mmap=head == b"PK\x03\x04"
            )
    except Exception as error:  # torch raises various errors for a damaged file
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
        said = f"holds more than tensors, and is not executed. {_said(what)}".rstrip()
        return f"{said} ({_RESAVE})"
    return f"is no whole torch file: {text.splitlines()[0][:200] if text else error!r}"


def _said(line: str) -> str:
    """torch's message on a pickle, without its advice to execute it."""
    return line.partition(" Please ")[0].strip()[:200]


def _flattened(content: object, file: Path) -> dict[str, Tensor]:
    """Tensors by their names; each dictionary, which may be in several places, is read once."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    waiting = [("", content, 0)]
    while waiting:
        prefix, value, depth = waiting.pop()
        if isinstance(value, Tensor) and prefix:
            if prefix in tensors:
                raise ModelError(f"{file} holds {printable_name(prefix)} twice")
            tensors[prefix] = value
        elif isinstance(value, dict) and depth < _DEEPEST and id(value) not in seen:
            seen.add(id(value))
            within = prefix + "." if prefix else ""
            # Reversed, since the stack's last is popped first: this keeps the file's order.
            waiting += [(f"{within}{key}", value[key], depth + 1) for key in reversed(value)]
    return tensors
