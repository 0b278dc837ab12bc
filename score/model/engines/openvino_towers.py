"""A model's two towers in OpenVINO: read, compiled, run, and written to files."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score.folder.model_folder import ModelFolder
from score.folder.small_files import read_bytes
from score.hardware.processor import cores
from score.model.engines.base import Engine
from score.model.engines.openvino_conversion import convert
from score.model.engines.telemetry import no_telemetry
from score.settings import Settings
from score.texts.packing import Packed, packed
from score.type_aliases import Matrix

with no_telemetry():
    import openvino

INT8 = "int8"
"""The folder in a model folder that holds its towers in int8."""

IMAGES, TEXTS, FACTS = "images.xml", "texts.xml", "facts.json"
_BLOBS = ("images", "texts")
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision → OpenVINO's hint; of int8, for the layers that are not quantised."""

# OpenVINO computes all matrix products of a model in the precision of its hint. In bf16 the heads
# of the towers, which are computed in fp32, are therefore models of their own.
_PARTS = {
    "fp32": {".blob": "fp32"},
    "bf16": {".blob": "bf16", ".head.blob": "fp32"},
    "int8": {".blob": "int8"},
}
"""Precision → the suffix of each compiled model's file → the precision it computes in."""

BROKEN = (OSError, RuntimeError, ValueError, TypeError, KeyError)
"""What is raised for files that are missing, damaged, or refused by OpenVINO."""

_CORE = openvino.Core()


class Tower:
    """Compiled models that run one after another, and the mapped files of their weights.

    The files stay mapped for as long as the tower lives: token embeddings are read from them.
    Replace the folder, as `score package` does; never overwrite its files.
    """

    def __init__(
        self, models: Sequence[openvino.CompiledModel], files: Sequence[_MappedFile] = ()
    ) -> None:
        """`models`: the output of each is the input of the next."""
        # Python frees the attributes in this order: requests before the files they read.
        self._requests = [model.create_infer_request() for model in models]
        self.models = models
        self._files = files

    def __call__(self, *inputs: np.ndarray) -> Matrix:
        """One pass: the inputs of the first model → vectors, float32."""
        for request in self._requests:
            inputs = tuple(request.infer(list(inputs), share_inputs=True).values())
        vectors: Matrix
        (vectors,) = inputs
        return vectors

    def warmed(self, *inputs: np.ndarray) -> Tower:
        """Itself, after a first pass, in which OpenVINO arranges the weights for its kernels.

        The pages of the files that were read so far are released: they would count as memory of
        this process. Raises RuntimeError.
        """
        self(*inputs)
        if hasattr(mmap, "MADV_DONTNEED"):
            for file in self._files:
                file.mapped.madvise(mmap.MADV_DONTNEED)
        return self


class _MappedFile:
    """A file, mapped into memory, as a tensor of bytes that OpenVINO reads without a copy."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self.mapped = mmap.mmap(
                stream.fileno(), 0, access=mmap.ACCESS_COPY
            )  # private: never written back
        self.tensor = openvino.Tensor(np.frombuffer(self.mapped, np.uint8), shared_memory=True)


class Facts(NamedTuple):
    """What a model needs beside its towers, as `Engine` has it."""

    logit_scale: float
    logit_bias: float | None

    @classmethod
    def of(cls, engine: Engine) -> Facts:
        """Those of a loaded model."""
        return cls(engine.logit_scale, engine.logit_bias)

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Those that `write` wrote. Raises what is in `BROKEN`."""
        content = json.loads(read_bytes(folder / FACTS))
        bias = content.get("logit_bias")
        return cls(float(content["logit_scale"]), None if bias is None else float(bias))

    def write(self, folder: Path) -> None:
        """Writes them. Raises OSError."""
        stated = {name: value for name, value in self._asdict().items() if value is not None}
        (folder / FACTS).write_text(json.dumps(stated) + "\n", encoding="utf-8")


class Towers(NamedTuple):
    """The image tower and the text tower of a model, compiled."""

    images: Tower
    texts: Tower
    facts: Facts

    @classmethod
    def of_pytorch(cls, folder: ModelFolder, settings: Settings, precision: str) -> Towers:
        """Loaded in PyTorch, then converted. Raises ModelError, RuntimeError."""
        from score.model.engines.pytorch import PyTorch

        exact = settings.replace({"device": "cpu", "precision": "fp32"})
        engine = PyTorch.load(folder, exact, plain=True)
        parts = _PARTS[precision].values()
        towers = convert(engine, folder.architecture.vision.image, head_apart=len(parts) > 1)
        images, texts = (Tower(list(map(compiled, models, parts))) for models in towers)
        return cls(images, texts, Facts.of(engine))

    @classmethod
    def of_int8(cls, folder: Path) -> Towers:
        """The int8 models that `save` wrote. Raises what is in `BROKEN`."""
        images, texts = (_read(folder / name) for name in (IMAGES, TEXTS))
        return cls(images, texts, Facts.read(folder))

    @classmethod
    def of_blobs(cls, folder: Path, precision: str, side: int) -> Towers:
        """The compiled models that `export` wrote, warmed. Raises what is in `BROKEN`.

        `side`: of an image, in pixels.
        """
        # One is warmed before the other is read, so that only one file at a time is in memory.
        first = (_first_image(side), _first_text())
        images, texts = (
            _imported(folder, name, precision).warmed(*inputs)
            for name, inputs in zip(_BLOBS, first, strict=True)
        )
        return cls(images, texts, Facts.read(folder))

    def warmed(self, side: int) -> Towers:
        """Both after `Tower.warmed`. `side`: of an image, in pixels."""
        self.images.warmed(*_first_image(side))
        self.texts.warmed(*_first_text())
        return self

    def export(self, folder: Path, precision: str) -> None:
        """Writes the compiled models, which only this CPU and this OpenVINO can load.

        Raises OSError, RuntimeError.
        """
        for name, tower in zip(_BLOBS, (self.images, self.texts), strict=True):
            for model, suffix in zip(tower.models, _PARTS[precision], strict=True):
                (folder / f"{name}{suffix}").write_bytes(model.export_model().getbuffer())
        self.facts.write(folder)


def _first_image(side: int) -> tuple[np.ndarray]:
    return (np.zeros((1, side, side, 3), np.uint8),)


def _first_text() -> Packed:
    ((text, _),) = packed([[0]])
    return text.roomy()


def _read(path: Path) -> Tower:
    file = _MappedFile(path.with_suffix(".bin"))
    return Tower([compiled(_CORE.read_model(path.read_bytes(), file.tensor), "int8")], [file])


def _imported(folder: Path, name: str, precision: str) -> Tower:
    parts = _PARTS[precision]
    files = [_MappedFile(folder / f"{name}{suffix}") for suffix in parts]
    models = [
        _CORE.import_model(file.tensor, "CPU", _properties(part))
        for file, part in zip(files, parts.values(), strict=True)
    ]
    return Tower(models, files)


def save(models: list[Any], engine: Engine, folder: Path) -> None:
    """Writes int8 models, image tower first, that any CPU can load. Raises OSError."""
    for name, model in zip((IMAGES, TEXTS), models, strict=True):
        openvino.save_model(model, folder / name, compress_to_fp16=False)
    Facts.of(engine).write(folder)


def compiled(model: openvino.Model, precision: str) -> openvino.CompiledModel:
    """A model compiled for this CPU. Raises RuntimeError."""
    return _CORE.compile_model(model, "CPU", _properties(precision))


def _properties(precision: str) -> Mapping[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",  # one pass at a time uses all cores
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": cores(),
        "ENABLE_CPU_PINNING": False,  # the same cores decode images
    }


def cpu_name() -> str:
    """The CPU's name, as OpenVINO gives it."""
    return str(_CORE.get_property("CPU", "FULL_DEVICE_NAME"))
