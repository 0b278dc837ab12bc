"""Model folder → an engine in OpenVINO, on a CPU.

Towers are PyTorch's, converted, or those in int8 that a package brings. What OpenVINO compiles them
to is kept in the user's cache, and loaded from there without PyTorch.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib.metadata
import json
import logging
import mmap
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import openvino

from score.arrays import Matrix
from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.hardware.processor import cores, cpu_flags, release_free_memory
from score.images.preprocess import Pixels, Preprocessor
from score.settings import Settings
from score.storage import atomic
from score.storage.cache import kept
from score.texts.packing import Packed, packed

if TYPE_CHECKING:
    import torch

    from score.model.engines.pytorch import PyTorch

log = logging.getLogger(__name__)

INT8 = "int8"
"""The folder in a model folder that holds its towers in int8."""

IMAGES, TEXTS, FACTS = "images.xml", "texts.xml", "facts.json"
_BLOBS = ("images", "texts")
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # of int8, what is not in int8
# OpenVINO computes all matrix products of a model in the precision of its hint, so that in bf16 the
# towers' heads, which are to be computed in fp32, are models of their own.
_PARTS = {
    "fp32": {".blob": "fp32"},
    "bf16": {".blob": "bf16", ".head.blob": "fp32"},
    "int8": {".blob": "int8"},
}
"""For each precision, how the files of compiled models end, and what each computes in."""
_BROKEN = (OSError, RuntimeError, ValueError, TypeError, KeyError)
"""What files raise that are not there, not whole, or not what OpenVINO wants."""

_TRACED = ("score.model.towers", "score.texts.packing", "score.model.engines.pytorch")
"""Modules of ours that decide what is traced, and so what is compiled."""

_UNUSABLE = "OpenVINO compiles anew, as every start will while the cache %s cannot be used: %s"

_CORE = openvino.Core()


class OpenVINO:
    """CLIP in OpenVINO."""

    name = "openvino"
    device = "cpu"
    new_shapes_are_costly = True  # 10 to 60 ms each, and 4 to 9 MB

    def __init__(self, towers: Towers, precision: str) -> None:
        self.precision = precision
        self.logit_scale = towers.logit_scale
        self._turn = threading.Lock()
        self._images, self._texts = towers.images, towers.texts

    def images(self, pixels: Pixels) -> Matrix:
        """As `Engine` has it."""
        return self._compute(self._images, pixels)

    def texts(self, texts: Packed) -> Matrix:
        """As `Engine` has it."""
        return self._compute(self._texts, *texts)

    def _compute(self, tower: Tower, *inputs: np.ndarray) -> Matrix:
        with self._turn:
            return tower(*inputs)


class Tower:
    """Compiled models to run in turn, and the files of their weights, if they are in files.

    The files stay mapped, since that of a text tower holds its table of tokens: replace the folder,
    as `score package` does, rather than write over what is in it.
    """

    def __init__(
        self, models: Sequence[openvino.CompiledModel], files: Sequence[_File] = ()
    ) -> None:
        """`models`: each but the first takes what the one before it gives."""
        # Python lets go of them in this order: what computes, then what it reads.
        self._requests = [model.create_infer_request() for model in models]
        self.models = models
        self._files = files

    def __call__(self, *inputs: np.ndarray) -> Matrix:
        """One pass."""
        for request in self._requests:
            inputs = tuple(request.infer(list(inputs), share_inputs=True).values())
        vectors: Matrix
        (vectors,) = inputs
        return vectors

    def warmed(self, *inputs: np.ndarray) -> Tower:
        """Itself, after a first pass, which arranges the weights as they are multiplied.

        What was read of the files until then is let go of: it would count as memory of ours. Raises
        RuntimeError.
        """
        self(*inputs)
        if hasattr(mmap, "MADV_DONTNEED"):
            for file in self._files:
                file.mapped.madvise(mmap.MADV_DONTNEED)
        return self


class _File:
    """A file as a tensor of bytes, which OpenVINO reads but does not hold."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self.mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)  # never written
        self.tensor = openvino.Tensor(np.frombuffer(self.mapped, np.uint8), shared_memory=True)


class Towers(NamedTuple):
    """Both of a model's, ready to compute."""

    images: Tower
    texts: Tower
    logit_scale: float

    @classmethod
    def of_pytorch(cls, folder: ModelFolder, settings: Settings, precision: str) -> Towers:
        """A model folder's, converted. Raises ModelError, RuntimeError."""
        from score.model.engines.pytorch import PyTorch

        exact = settings.replace({"device": "cpu", "precision": "fp32"})
        engine = PyTorch.load(folder, exact, plain=True)
        parts = _PARTS[precision].values()
        towers = convert(engine, folder.architecture.vision.image, head_apart=len(parts) > 1)
        images, texts = (Tower(list(map(compiled, models, parts))) for models in towers)
        return cls(images, texts, engine.logit_scale)

    @classmethod
    def of_int8(cls, folder: Path) -> Towers:
        """Those that `save` wrote. Raises what is in `_BROKEN`."""
        images, texts = (_read(folder / name) for name in (IMAGES, TEXTS))
        return cls(images, texts, _logit_scale(folder))

    @classmethod
    def of_blobs(cls, folder: Path, precision: str, side: int) -> Towers:
        """Those that `export` wrote, warmed. Raises what is in `_BROKEN`.

        `side`: of an image, in pixels.
        """
        # One is warm before the other is read, so that no more than one file is in memory.
        first = (_first_image(side), _first_text())
        images, texts = (
            _imported(folder, name, precision).warmed(*inputs)
            for name, inputs in zip(_BLOBS, first, strict=True)
        )
        return cls(images, texts, _logit_scale(folder))

    def warmed(self, side: int) -> Towers:
        """These, as `Tower.warmed` has it."""
        self.images.warmed(*_first_image(side))
        self.texts.warmed(*_first_text())
        return self

    def export(self, folder: Path, precision: str) -> None:
        """Writes what OpenVINO made of them, for this CPU and precision.

        Raises OSError, RuntimeError.
        """
        for name, tower in zip(_BLOBS, (self.images, self.texts), strict=True):
            for model, ending in zip(tower.models, _PARTS[precision], strict=True):
                (folder / f"{name}{ending}").write_bytes(model.export_model().getbuffer())
        _write_facts(folder, self.logit_scale)


def _first_image(side: int) -> tuple[np.ndarray]:
    return (np.zeros((1, side, side, 3), np.uint8),)


def _first_text() -> Packed:
    ((text, _),) = packed([[0]])
    return text.roomy()


def _read(path: Path) -> Tower:
    file = _File(path.with_suffix(".bin"))
    return Tower([compiled(_CORE.read_model(path.read_bytes(), file.tensor), "int8")], [file])


def _imported(folder: Path, name: str, precision: str) -> Tower:
    parts = _PARTS[precision]
    files = [_File(folder / f"{name}{ending}") for ending in parts]
    models = [
        _CORE.import_model(file.tensor, "CPU", _properties(part))
        for file, part in zip(files, parts.values(), strict=True)
    ]
    return Tower(models, files)


def _logit_scale(folder: Path) -> float:
    return float(json.loads((folder / FACTS).read_bytes())["logit_scale"])


def _write_facts(folder: Path, logit_scale: float) -> None:
    (folder / FACTS).write_text(json.dumps({"logit_scale": logit_scale}) + "\n", encoding="utf-8")


def load(folder: ModelFolder, settings: Settings) -> OpenVINO:
    """The folder's model. Raises ModelError."""
    precision = "fp32" if settings.precision == "auto" else settings.precision
    if precision not in _HINTS:
        raise ModelError(f"OpenVINO computes in {', '.join(_HINTS)}, not in {precision}")
    if settings.device not in ("auto", "cpu"):
        raise ModelError(f"OpenVINO computes on the CPU, not on {settings.device!r}")
    if precision == "int8" and not (folder.path / INT8 / FACTS).is_file():
        raise ModelError(f"{folder.path} has no int8: `score package … --int8 IMAGES` makes it")
    side = folder.architecture.vision.image
    made: list[Towers] = []

    def make(begun: Path) -> None:
        log.info("compiling %s for OpenVINO, once; kept in %s", folder.path, begun.parent)
        made.append(_made(folder, settings, precision))
        made[0].export(begun, precision)
        made.clear()
        _forget_traces()

    try:
        cached = kept(_cache(settings) / _key(folder, precision), make)
        try:
            return OpenVINO(Towers.of_blobs(cached, precision, side), precision)
        except _BROKEN:  # whole, but for another build of OpenVINO, say
            atomic.remove(cached)
            raise
    except _BROKEN as error:
        log.warning(_UNUSABLE, settings.cache, _reason(error))
    # That error is gone, and with it what it held of the towers that were made.
    with _blaming(folder, precision):
        towers = made[0] if made else _made(folder, settings, precision)
        return OpenVINO(towers.warmed(side), precision)


def _made(folder: ModelFolder, settings: Settings, precision: str) -> Towers:
    """Towers that are not from the cache. Raises ModelError."""
    with _blaming(folder, precision):
        if precision == "int8":
            return Towers.of_int8(folder.path / INT8)
        towers = Towers.of_pytorch(folder, settings, precision)
        _forget_traces()
        return towers


@contextlib.contextmanager
def _blaming(folder: ModelFolder, precision: str) -> Iterator[None]:
    """Says of what is broken where it came from."""
    try:
        yield
    except _BROKEN as error:
        source = folder.path / INT8 if precision == "int8" else folder.path
        raise ModelError(f"OpenVINO cannot load {source}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _forget_traces() -> None:
    """PyTorch's hold themselves, and glibc what was freed: together twice the model."""
    gc.collect()
    release_free_memory()


def convert(engine: PyTorch, side: int, *, head_apart: bool = False) -> list[list[Any]]:
    """Both towers → OpenVINO's models of them, of any number of images of a side, or of texts.

    `head_apart`: two models a tower, the second being its head; else one.
    """
    import torch

    pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    ((texts, _),) = packed([[3, 2, 1]] * 40)
    images, tokens = engine.modules(head_apart=head_apart)
    with torch.no_grad():
        return [
            _models_of(images, pixels),
            _models_of(tokens, *map(torch.from_numpy, texts)),
        ]


def _models_of(modules: Sequence[torch.nn.Module], *examples: torch.Tensor) -> list[Any]:
    """Models of modules that are called in turn. `examples`: the first one's inputs."""
    models = []
    for module in modules:
        models.append(model_of(module, *examples))
        examples = (module(*examples),)
    return models


def model_of(tower: torch.nn.Module, *examples: torch.Tensor) -> Any:
    """OpenVINO's model of a module, of any size of what `examples` are one of."""
    # What `openvino.convert_model` does, but for its telemetry.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.passes import ConstantFolding, Manager

    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather have its graphs exported
        decoder = TorchScriptPythonDecoder(tower.eval(), example_input=examples)
    model = frontend.convert(frontend.load(decoder))
    passes = Manager()
    passes.register_pass(ConstantFolding())  # NNCF wants weights to be constants, not parts of one
    passes.run_passes(model)
    return model


def save(models: list[Any], logit_scale: float, folder: Path) -> None:
    """Writes a folder of towers, for any CPU. Raises OSError."""
    for name, model in zip((IMAGES, TEXTS), models, strict=True):
        openvino.save_model(model, folder / name, compress_to_fp16=False)
    _write_facts(folder, logit_scale)


def compiled(model: openvino.Model, precision: str) -> openvino.CompiledModel:
    """A model for this CPU. Raises RuntimeError."""
    return _CORE.compile_model(model, "CPU", _properties(precision))


def _properties(precision: str) -> Mapping[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",  # one pass at a time, on all cores
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": cores(),
        "ENABLE_CPU_PINNING": False,  # images are decoded on the same cores
    }


def _cache(settings: Settings) -> Path:
    return Path(settings.cache).expanduser() / "engines"


def _key(folder: ModelFolder, precision: str) -> str:
    """A name for what towers are compiled from, by what, and for which CPU. Raises OSError."""
    files, libraries, modules = _sources(folder, precision)
    made_by = [importlib.metadata.version(name) for name in libraries]
    made_for = [precision, _CORE.get_property("CPU", "FULL_DEVICE_NAME"), *sorted(cpu_flags())]
    configuration = folder.architecture.config()
    digest = hashlib.sha256(json.dumps([made_by, made_for, configuration], sort_keys=True).encode())
    for values in Preprocessor.from_config(folder.preprocessor).normalisation():
        digest.update(values.tobytes())
    for file in [*map(_source, modules), *files]:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _source(module: str) -> Path:
    """The file of a module, by its dotted name."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _sources(folder: ModelFolder, precision: str) -> tuple[list[Path], list[str], list[str]]:
    """Files, libraries, and modules of ours that decide what is compiled."""
    if precision == "int8":
        towers = [folder.path / INT8 / name for name in (IMAGES, TEXTS)]
        files = [*towers, *(tower.with_suffix(".bin") for tower in towers)]
        return [*files, folder.path / INT8 / FACTS], ["openvino"], [__name__]
    return sorted(folder.path.glob("*.safetensors")), ["openvino", "torch"], [*_TRACED, __name__]
