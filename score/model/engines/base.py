"""The interface of engines, which compute a model's vectors, one batch at a time.

`encoder` makes the batches; each other module in `engines` computes them with another library.
"""

from __future__ import annotations

from typing import Protocol

from score.images.preprocess import Pixels
from score.texts.packing import Packed
from score.type_aliases import Matrix


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
    def logit_scale(self) -> float:
        """The factor of cosines: exp of the checkpoint's logit_scale."""

    def images(self, pixels: Pixels) -> Matrix:
        """uint8 images [n, height, width, 3] → vectors [n, dimension]."""

    def texts(self, texts: Packed) -> Matrix:
        """Token ids [rows, length], several texts a row → vectors [rows, texts, dimension]."""
