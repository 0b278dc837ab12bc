"""Whether a model that serves still computes the right vectors: one probe of each kind.

The probes go the way of any row, so they also wait where rows wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from score.core.embedder import Embedder, parts_of, probes_of
from score.errors import RowError
from score.model.probes import TOLERANCES, Probes, difference
from score.type_aliases import ImageInput, Vector

log = logging.getLogger(__name__)

TEXT = "a photo of a cat"
IMAGE = b"P6 16 16 255\n" + bytes((7 * value) % 256 for value in range(16 * 16 * 3))
"""For folders without probes; the image is a PPM file."""


class _Probe(NamedTuple):
    kind: str
    compute: Callable[[], Vector]
    expected: Vector


class SelfTest:
    """A text and an image with the vectors that they must have.

    The package's probes; for a folder without probes, what it computes when it is loaded.
    """

    def __init__(self, embedder: Embedder) -> None:
        probes = probes_of(embedder)
        text, text_vector = _text(probes)
        image, image_vector = _image(probes)
        precision = parts_of(embedder).encoder.engine.precision
        tolerances = probes.tolerances if probes else TOLERANCES
        self._tolerance = tolerances.get(precision, TOLERANCES["bf16"])
        self._probes: list[_Probe] = []
        self._add("text", partial(embedder.embed_text, text), text_vector)
        self._add("image", partial(embedder.embed_image, image), image_vector)

    def _add(self, kind: str, compute: Callable[[], Vector], expected: Vector | None) -> None:
        try:
            ours = compute()
        except RowError as error:
            log.warning("the settings refuse the %s probe: %s", kind, error)
        else:
            self._probes.append(_Probe(kind, compute, ours if expected is None else expected))

    def fault(self) -> str:
        """What is wrong; an empty string if nothing is. Never raises."""
        for kind, compute, expected in self._probes:
            try:
                ours = compute()
            except Exception as error:
                return f"the {kind} probe failed: {type(error).__name__}"
            if not self._close(ours, expected):
                return f"the vector of the {kind} probe is wrong"
        return ""

    def _close(self, ours: Vector, expected: Vector) -> bool:
        if ours.shape != expected.shape or not np.isfinite(ours).all():
            return False
        cosine, error = difference(ours, expected)
        return cosine >= self._tolerance.cosine and error <= self._tolerance.error


def _text(probes: Probes | None) -> tuple[str, Vector | None]:
    for probe in probes.texts if probes else ():
        if probe.text.strip():
            return probe.text, probe.vector
    return TEXT, None


def _image(probes: Probes | None) -> tuple[ImageInput, Vector | None]:
    for probe in probes.images if probes else ():
        return probe.data, probe.vector
    return IMAGE, None
