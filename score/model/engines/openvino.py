"""Model folder → an engine in OpenVINO, on a CPU.

Its towers are PyTorch's, converted, or those in int8 that a package brings; `openvino_cache` keeps
what they are compiled to.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from score.concurrency.forks import ForkSafeLock
from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.images.preprocess import Pixels
from score.model.engines.base import ON_CPU
from score.model.engines.openvino_cache import blaming, compile_towers, load_cached, reason
from score.model.engines.openvino_towers import BROKEN, FACTS, HINTS, INT8, Tower, Towers
from score.settings import Settings
from score.texts.packing import Packed
from score.type_aliases import Matrix

log = logging.getLogger(__name__)

_UNUSABLE = "OpenVINO compiles anew, as every start will while the cache %s cannot be used: %s"


class OpenVINO:
    """CLIP in OpenVINO."""

    name = "openvino"
    device = "cpu"
    new_shapes_are_costly = True  # 10 to 60 ms each, and 4 to 9 MB
    pads_passes = False
    pass_sizes = ON_CPU

    def __init__(self, towers: Towers, precision: str) -> None:
        self.precision = precision
        self.logit_scale, self.logit_bias = towers.facts
        self._one_pass = ForkSafeLock()
        self._images, self._texts = towers.images, towers.texts

    def images(self, images: Sequence[Pixels]) -> Matrix:
        """As `Engine`."""
        return self._compute(self._images, np.stack(images))

    def texts(self, texts: Packed) -> Matrix:
        """As `Engine`."""
        return self._compute(self._texts, *texts)

    def _compute(self, tower: Tower, *inputs: np.ndarray) -> Matrix:
        with self._one_pass:
            return tower(*inputs)


def load(folder: ModelFolder, settings: Settings) -> OpenVINO:
    """The folder's model, from the cache if possible. Raises ModelError."""
    precision = _precision(folder, settings)
    unsaved: list[Towers] = []
    try:
        return OpenVINO(load_cached(folder, settings, precision, unsaved), precision)
    except BROKEN as error:
        log.warning(_UNUSABLE, settings.cache, reason(error))
    # Leave the except block first: the traceback keeps the failed towers, hence their memory,
    # alive.
    with blaming(folder, precision):
        towers = unsaved[0] if unsaved else compile_towers(folder, settings, precision)
        return OpenVINO(towers.warmed(folder.architecture.vision.image), precision)


def _precision(folder: ModelFolder, settings: Settings) -> str:
    """The precision to compute in; `auto` is fp32. Raises ModelError for what is not possible."""
    precision = "fp32" if settings.precision == "auto" else settings.precision
    if precision not in HINTS:
        raise ModelError(f"OpenVINO computes in {', '.join(HINTS)}, not in {precision}")
    if settings.device not in ("auto", "cpu"):
        raise ModelError(f"OpenVINO computes on the CPU, not on {settings.device!r}")
    if precision == "int8" and not (folder.path / INT8 / FACTS).is_file():
        raise ModelError(f"{folder.path} has no int8: `score package … --int8 IMAGES` makes it")
    return precision
