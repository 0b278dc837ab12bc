"""What computes a model's vectors, one batch at a time.

`encoder` makes the batches; the modules in `engines` compute them, each in its own way.
"""

from __future__ import annotations

from typing import Protocol

from score.arrays import Matrix
from score.images.preprocess import Pixels
from score.texts.packing import Packed


class Engine(Protocol):
    """A CLIP model where it computes. Its passes come one after another, from any thread."""

    @property
    def name(self) -> str:
        """As the settings spell it: torch or openvino."""

    @property
    def precision(self) -> str:
        """What the arithmetic is done in, as the settings spell it: fp32, bf16, fp16 or int8."""

    @property
    def device(self) -> str:
        """Where: cpu, cuda, …"""

    @property
    def new_shapes_are_costly(self) -> bool:
        """Whether each new shape of inputs takes it some time, and some megabytes for good."""

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with, the exponential taken."""

    def images(self, pixels: Pixels) -> Matrix:
        """uint8 images [n, height, width, 3] → vectors [n, dimension]."""

    def texts(self, texts: Packed) -> Matrix:
        """Token ids [rows, length] → the vectors of their texts [rows, texts, dimension]."""
