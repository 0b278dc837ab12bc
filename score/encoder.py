"""Model folder → `Encoder`: pixels or token ids in, float32 vectors out.

Reads whatever CLIP the folder's `config.json` declares; activation, pooling, widths and projection
come from there. Knows devices and precisions; knows nothing of rows, strings or pictures' bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from score import gpus
from score.architecture import Architecture
from score.errors import ModelError
from score.folder import ModelFolder
from score.images import Pixels, Preprocessor
from score.settings import Settings
from score.texts import Ids
from score.towers import ImageTower, TextTower
from score.weights import Weights

Matrix = npt.NDArray[np.float32]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PAD = 0  # any id but the end token's: what stands after the end token is never looked at
_TEXT_TOKENS = 2560  # token ids, padding included, in one forward pass: about 32 full contexts


class Place(NamedTuple):
    """Where a model computes, and in which precision."""

    device: torch.device
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """The dtype's name among the settings: fp32, bf16 or fp16."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @classmethod
    def of(cls, settings: Settings) -> Place:
        """What the settings ask for; `auto` takes a GPU where there is one.

        Precision `auto` is fp32 on a CPU, where fp16 is slower, and fp16 on a GPU. Raises
        ModelError for a device that is not here.
        """
        name = settings.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and torch.cuda.device_count() > 1:
            name = f"cuda:{gpus.take(_uuids())}"
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"no device {settings.device!r} here: {reason}") from error
        precision = settings.precision
        if precision == "auto":
            precision = "fp16" if device.type == "cuda" else "fp32"
        return cls(device, DTYPES[precision])


def _uuids() -> list[str]:
    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(number).uuid) for number in range(count)]


class Encoder:
    """A CLIP model on a device. Safe to share between threads: passes run one after another."""

    def __init__(
        self,
        architecture: Architecture,
        images: ImageTower,
        texts: TextTower,
        logit_scale: float,
        lookup: Matrix,
        place: Place,
        batch_size: int,
    ) -> None:
        """`logit_scale`: what cosines are multiplied with, the exponential taken; `lookup`:
        `Preprocessor.lookup`; `batch_size`: pictures in one forward pass."""
        self.architecture = architecture
        self.logit_scale = logit_scale
        self._image_tower, self._text_tower = images, texts
        self.place = place
        self.dimension = architecture.dimension
        self._lookup = torch.from_numpy(lookup).flatten().to(place.device)
        self._channels = 256 * torch.arange(3, dtype=torch.int32, device=place.device).view(3, 1, 1)
        self._batch_size = batch_size
        self._turn = threading.Lock()

    @classmethod
    def load(cls, folder: ModelFolder, settings: Settings) -> Encoder:
        """The folder's model, on the device and in the precision the settings ask for.

        Raises ModelError for a folder that is not, or not wholly, a CLIP model in safetensors.
        """
        place = Place.of(settings)
        made = folder.architecture
        preprocessor = Preprocessor.from_config(folder.preprocessor)
        if preprocessor.size != (made.vision.image, made.vision.image):
            raise ModelError(
                f"preprocessor_config.json makes pictures of {preprocessor.size}, "
                f"config.json wants {made.vision.image}×{made.vision.image}"
            )
        weights = Weights.open(folder.path)
        weights.check(made.shapes())

        def take(name: str) -> torch.Tensor:
            # Copied: a view would change, or crash the process, with the file under it.
            return weights.read(name).to(place.device, place.dtype, copy=True)

        scale = weights.read("logit_scale").float().exp()
        if scale.isnan():
            raise ModelError(f"{folder.path}: logit_scale is NaN")
        images = ImageTower(take, made.vision)
        texts = TextTower(take, made.text, largest=made.pools_largest)
        lookup = preprocessor.lookup()
        return cls(made, images, texts, float(scale), lookup, place, settings.batch_size)

    def images(self, pictures: Sequence[Pixels]) -> Matrix:
        """uint8 pictures of one size [height, width, 3] → vectors [pictures, dimension]."""
        vectors = self._empty(len(pictures))
        for start in range(0, len(pictures), self._batch_size):
            part = slice(start, start + self._batch_size)
            vectors[part] = self._images(np.stack(pictures[part]))
        return _finite(vectors)

    def texts(self, texts: Sequence[Ids]) -> Matrix:
        """Token ids → vectors [texts, dimension].

        Texts of like length share a pass, so that little padding is computed. Padding stands after
        the end token, where a causal model does not see it: the company a text keeps is immaterial.
        """
        vectors = self._empty(len(texts))
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for part in _passes(by_length, [len(texts[index]) for index in by_length]):
            vectors[part] = self._texts([texts[index] for index in part])
        return _finite(vectors)

    def _empty(self, rows: int) -> Matrix:
        return np.empty((rows, self.dimension), dtype=np.float32)

    @torch.inference_mode()
    def _images(self, pixels: Pixels) -> Matrix:
        with self._turn:
            values = torch.from_numpy(pixels).to(self.place.device).permute(0, 3, 1, 2)
            indices = (values + self._channels).flatten()
            normalised = self._lookup.index_select(0, indices).view(values.shape)
            return _matrix(self._image_tower.encode(normalised.to(self.place.dtype)))

    @torch.inference_mode()
    def _texts(self, texts: Sequence[Ids]) -> Matrix:
        width = max(len(ids) for ids in texts)
        padded = np.full((len(texts), width), _PAD, dtype=np.int64)
        for row, ids in zip(padded, texts, strict=True):
            row[: len(ids)] = ids
        with self._turn:
            return _matrix(self._text_tower.encode(torch.from_numpy(padded).to(self.place.device)))


def _passes(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Indices in order, grouped so that no group holds more than `_TEXT_TOKENS` padded ids."""
    groups: list[list[int]] = []
    for index, length in zip(order, lengths, strict=True):
        if not groups or (len(groups[-1]) + 1) * length > _TEXT_TOKENS:
            groups.append([])
        groups[-1].append(index)
    return groups


def _matrix(vectors: torch.Tensor) -> Matrix:
    matrix: Matrix = vectors.float().cpu().numpy()
    return matrix


def _finite(vectors: Matrix) -> Matrix:
    if not np.isfinite(vectors).all():
        raise ModelError("the model computed NaN or infinity; try SCORE_PRECISION=fp32 or bf16")
    return vectors
