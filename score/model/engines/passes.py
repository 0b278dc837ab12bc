"""How inputs get to a device, and vectors back: in passes as they come, or padded to few shapes,
which are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from score.images.preprocess import Pixels
from score.model.engines.cuda_graphs import Encode, Recorder, pinned
from score.texts.packing import Packed
from score.type_aliases import Matrix


class Passes(Protocol):
    """The passes of a model's two towers, for one thread at a time."""

    def images(self, images: Sequence[Pixels]) -> Matrix:
        """uint8 images of one size [height, width, 3] → vectors [images, dimension]."""

    def texts(self, texts: Packed) -> Matrix:
        """Texts in rows → vectors [rows, texts, dimension]; there may be more texts a row than
        came."""


class DirectPasses:
    """Passes that are computed as they come."""

    def __init__(self, images: Encode, texts: Encode, device: torch.device) -> None:
        self._images, self._texts, self._device = images, texts, device

    def images(self, images: Sequence[Pixels]) -> Matrix:
        """As `Passes`."""
        return self._compute(self._images, np.stack(images))

    def texts(self, texts: Packed) -> Matrix:
        """As `Passes`."""
        return self._compute(self._texts, *texts)

    def _compute(self, encode: Encode, *inputs: np.ndarray) -> Matrix:
        on_device = [torch.from_numpy(values).to(self._device) for values in inputs]
        vectors: Matrix = encode(*on_device).cpu().numpy()
        return vectors


class RecordedPasses:
    """Passes on an NVIDIA GPU, each shape recorded once."""

    def __init__(self, images: Encode, texts: Encode, device: torch.device) -> None:
        self._images, self._texts = Recorder(images, device), Recorder(texts, device)

    def images(self, images: Sequence[Pixels]) -> Matrix:
        """As `Passes`."""
        count = len(images)
        room = pinned((padded_size(count), *images[0].shape), torch.uint8)
        np.stack(images, out=room.numpy()[:count])
        return self._images(room)[:count].numpy()

    def texts(self, texts: Packed) -> Matrix:
        """As `Passes`."""
        rows = len(texts.ids)
        length, room = texts.ids.shape[1], texts.ends.shape[1]
        padded = texts.roomy() if rows == 1 else texts.padded(padded_size(rows), length, room)
        return self._texts(*map(_pinned, padded))[:rows].numpy()


def padded_size(count: int) -> int:
    """The inputs that a pass of so many is padded to: a power of two, or three quarters of one."""
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


def _pinned(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).pin_memory()
