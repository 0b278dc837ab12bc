"""The interface of engines, which compute a model's vectors, one batch at a time.

`encoder` makes the batches; each other module in `engines` computes them with another library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from score.images.preprocess import Pixels
from score.texts.packing import MOST_ROWS, Packed
from score.type_aliases import Matrix


class PassSizes(NamedTuple):
    """The largest passes that pay off: images, and rows of texts (`packing`)."""

    images: int
    rows: int


ON_CPU = PassSizes(32, MOST_ROWS)
"""Larger passes are no faster on CPUs, and need more memory."""


class Engine(Protocol):
    """A loaded CLIP model. Any thread may call it; passes run one after another."""

    @property
    def name(self) -> str:
        """The value of the setting `engine`: torch or openvino."""

    @property
    def precision(self) -> str:
        """The precision it computes in: fp32, bf16, fp16 or int8."""

    @property
    def device(self) -> str:
        """The type of device: cpu, cuda, …"""

    @property
    def new_shapes_are_costly(self) -> bool:
        """Whether each new shape of inputs costs compile time, and memory that is never freed."""

    @property
    def pads_passes(self) -> bool:
        """Whether it pads passes of any size to few shapes by itself."""

    @property
    def pass_sizes(self) -> PassSizes:
        """The largest passes that it should be asked for."""

    @property
    def logit_scale(self) -> float:
        """The factor of cosines: exp of the checkpoint's logit_scale."""

    @property
    def logit_bias(self) -> float | None:
        """Added to scaled cosines, where labels are judged each by itself (SigLIP)."""

    def images(self, images: Sequence[Pixels]) -> Matrix:
        """uint8 images of one size [height, width, 3] → vectors [images, dimension]."""

    def texts(self, texts: Packed) -> Matrix:
        """Token ids [rows, length], several texts a row → vectors [rows, texts, dimension]; there
        may be more texts a row than came."""
