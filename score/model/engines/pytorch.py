"""Model folder → an engine in PyTorch, on a CPU or a GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from score.concurrency.forks import ForkSafeLock
from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.folder.weights import Weights
from score.hardware import drivers, gpus
from score.hardware.processor import release_free_memory
from score.images.preprocess import Pixels, Preprocessor
from score.model.engines import cuda_graphs
from score.model.engines.base import ON_CPU, PassSizes
from score.model.engines.one_dnn import OneDnnLinear, pays
from score.model.engines.passes import DirectPasses, Passes, RecordedPasses
from score.model.image_tower import ImageTower
from score.model.text_tower import TextTower
from score.model.transformer import Layout, Plain, ScaledLinear
from score.settings import Settings
from score.texts.packing import Packed
from score.type_aliases import Matrix

log = logging.getLogger(__name__)

# A pass of fewer images does not occupy an H100 with a ViT-B/32 (docs/gpu.md).
_ON_GPU = PassSizes(images=128, rows=256)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Placement(NamedTuple):
    """The device and the dtype that a model computes on and in."""

    device: torch.device
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """The dtype's name among the settings: fp32, bf16 or fp16."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @classmethod
    def of(cls, settings: Settings) -> Placement:
        """The placement that the settings ask for; device `auto` is a GPU if one works, else cpu.

        Precision `auto` is fp32 here; `model.precision` tries faster ones. Raises ModelError for a
        device that is missing, or that this PyTorch cannot use.
        """
        name = settings.device
        try:
            if name == "auto":
                name = _best()
            if name == "cuda" and torch.cuda.device_count() > 1:
                name = f"cuda:{gpus.take(_uuids())}"
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            known = _fault() if name.startswith("cuda") else None
            reason = known or str(error).splitlines()[0]
            raise ModelError(f"no device {settings.device!r} here: {reason}") from error
        if device.type == "cuda" and (lacking := _lacking(device)):
            raise ModelError(f"device {settings.device!r} cannot be used: {lacking}")
        precision = "fp32" if settings.precision == "auto" else settings.precision
        if precision not in DTYPES:
            raise ModelError(f"PyTorch computes in {', '.join(DTYPES)}, not in {precision}")
        return cls(device, DTYPES[precision])


def gpus_for(device: str) -> tuple[int, int]:
    """How many GPUs processes with a setting `device` have, and the bytes of the smallest one. None
    is taken into use for that."""
    count = torch.cuda.device_count()
    if device not in ("auto", "cuda"):
        count = min(count, int(device.startswith("cuda")))
    sizes = (torch.cuda.get_device_properties(number).total_memory for number in range(count))
    return count, min(sizes, default=0)


def _best() -> str:
    """A GPU where one works; else the CPU, with a warning where there is a GPU that does not."""
    if torch.cuda.is_available():
        reason = _lacking(torch.device("cuda"))
    elif drivers.devices():
        reason = _fault() or "PyTorch finds no GPU that it can use"
    else:
        return "cpu"
    if reason is None:
        return "cuda"
    _warn(reason)
    return "cpu"


def _fault() -> str | None:
    """Why CUDA does not work at all; None if it works or the reason is unknown."""
    if torch.cuda.is_available():  # CUDA works: the settings name a device that is missing
        return None
    return drivers.driver_problem(torch.__version__, torch.version.cuda)


def _lacking(device: torch.device) -> str | None:
    """Why this PyTorch cannot use a GPU; None if it can."""
    if torch.version.cuda is None:  # ROCm, whose devices torch calls cuda, too
        return None
    name = torch.cuda.get_device_name(device)
    capability = torch.cuda.get_device_capability(device)
    return drivers.kernel_problem(name, capability, torch.cuda.get_arch_list())


@cache
def _warn(reason: str) -> None:
    """Logs a reason once a process."""
    log.warning(
        "COMPUTING ON THE CPU, many times slower, although this machine has a GPU: %s. "
        "SCORE_DEVICE=cuda makes this an error, SCORE_DEVICE=cpu silences it.",
        reason,
    )


def records(device: torch.device) -> bool:
    """Whether passes are recorded as CUDA graphs: on NVIDIA's GPUs, the only ones where that was
    tried."""
    return device.type == "cuda" and torch.version.cuda is not None


def layout_of(placement: Placement) -> Layout:
    """The layout of weights that is fastest there."""
    linear = OneDnnLinear if pays(placement.device, placement.dtype) else Plain
    # cuBLAS multiplies a product by a factor for nothing, before it is rounded.
    factors = records(placement.device) and placement.dtype != torch.float32
    return Layout(linear, fused=True, scaled=ScaledLinear if factors else None)


def _uuids() -> list[str]:
    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(number).uuid) for number in range(count)]


class TowerModule(torch.nn.Module):
    """A tower, or a part of it, as a PyTorch module, to be traced."""

    def __init__(self, owner: object, compute: Callable[..., Tensor]) -> None:
        """`owner`: holds the tensors that `compute` uses."""
        super().__init__()
        self._compute = compute
        # PyTorch keeps a trace until the process ends, with all tensors in it but the buffers.
        for number, tensor in enumerate(_tensors(owner)):
            self.register_buffer(str(number), tensor)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The result of `compute`."""
        return self._compute(*inputs)


def _tensors(thing: object) -> Iterator[Tensor]:
    """All tensors in an object's attributes, recursively through tuples, lists and attributes."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, (tuple, list)):
        for part in thing:
            yield from _tensors(part)
    elif hasattr(thing, "__dict__"):
        yield from _tensors(list(vars(thing).values()))


def release_memory() -> None:
    """Returns freed memory to the system and, of GPUs, to their drivers: PyTorch keeps what it has
    freed there for its own next tensors, and other processes lack it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        cuda_graphs.release_pinned()
    release_free_memory()


class PyTorch:
    """CLIP in PyTorch."""

    name = "torch"

    def __init__(
        self,
        images: ImageTower,
        texts: TextTower,
        logit_scale: float,
        logit_bias: float | None,
        placement: Placement,
        *,
        plain: bool,
        new_shapes_are_costly: bool,
    ) -> None:
        self._images, self._texts = images, texts
        self.logit_scale, self.logit_bias = logit_scale, logit_bias
        self.new_shapes_are_costly = new_shapes_are_costly
        self.precision, self.device = placement.precision, placement.device.type
        self.pads_passes = records(placement.device)
        self.pass_sizes = _ON_GPU if self.pads_passes else ON_CPU
        self._device, self._plain = placement.device, plain
        make = RecordedPasses if self.pads_passes else DirectPasses
        self._passes: Passes = make(images.encode, texts.encode, placement.device)
        self._process = os.getpid()
        self._one_pass = ForkSafeLock()

    @classmethod
    def load(cls, folder: ModelFolder, settings: Settings, *, plain: bool = False) -> PyTorch:
        """The folder's model, on the device and in the precision of the settings.

        `plain`: keeps the weights as in the checkpoint, as `modules` needs. Raises ModelError for a
        folder that is not a complete CLIP model in safetensors.
        """
        placement, architecture = Placement.of(settings), folder.architecture
        weights = Weights.open(folder.path)
        weights.check(architecture.shapes())
        scale = weights.read("logit_scale").float().exp()
        bias = weights.read("logit_bias").float() if architecture.has_bias else None
        for name, value in (("logit_scale", scale), ("logit_bias", bias)):
            if value is not None and value.isnan():
                raise ModelError(f"{folder.path}: {name} is NaN")

        def take(name: str, dtype: torch.dtype | None = None) -> Tensor:
            return weights.read(name).to(placement.device, dtype or placement.dtype)

        normalisation = Preprocessor.from_config(folder.preprocessor).normalisation()
        layout = Layout(Plain, fused=False) if plain else layout_of(placement)
        images = ImageTower(take, architecture.vision, normalisation, layout)
        texts = TextTower(take, architecture.text, layout)
        release_memory()  # of the matrices as read, before they were rearranged
        # For each new shape oneDNN compiles a kernel a matrix, 0.6 MB each; it caches a thousand.
        costly = layout.linear is OneDnnLinear or (
            placement.device.type == "cpu" and placement.dtype != torch.float32
        )
        return cls(
            images,
            texts,
            float(scale),
            None if bias is None else float(bias),
            placement,
            plain=plain,
            new_shapes_are_costly=costly,
        )

    def modules(self, *, head_apart: bool = False) -> tuple[list[TowerModule], list[TowerModule]]:
        """The image tower and the text tower as modules that run one after another.

        `head_apart`: two modules a tower, the second being its head; else one. Raises TypeError
        unless loaded `plain`: OpenVINO would copy queries, keys and values of a fused layer, and
        cannot read oneDNN's blocked weights.
        """
        if not self._plain:
            raise TypeError("weights that were rearranged cannot be taken apart")
        images, texts = self._images, self._texts
        if not head_apart:
            return [TowerModule(images, images.encode)], [TowerModule(texts, texts.encode)]
        return (
            [TowerModule(images, images.pool), TowerModule(images.head, images.head)],
            [TowerModule(texts, texts.pool), TowerModule(texts.head, texts.head)],
        )

    def images(self, images: Sequence[Pixels]) -> Matrix:
        """As `Engine`."""
        with self._pass():
            return self._passes.images(images)

    def texts(self, texts: Packed) -> Matrix:
        """As `Engine`."""
        with self._pass():
            return self._passes.texts(texts)

    @contextmanager
    def _pass(self) -> Iterator[None]:
        """A block in which this thread alone computes."""
        if self._device.type != "cpu" and self._process != os.getpid():
            raise ModelError(
                f"the model on {self._device} was loaded before this process was forked, which no "
                "GPU survives: load it in the new process (gunicorn: without --preload)"
            )
        with self._one_pass, torch.inference_mode():
            yield
