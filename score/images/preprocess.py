"""RGB → uint8 pixels, as transformers' PIL image processors make them, bit for bit.

The model folder says what happens to an image (`preprocessor_config.json`). The steps, their order
and their rounding are those of transformers' PIL image processors (5.x): resize, then crop or pad
to the centre. Rescaling and normalising are left to the model, which has them multiplied into its
first weights (`image_tower`).

Knows nothing of torch or URLs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from score.errors import ModelError, TooManyPixels
from score.images import processors
from score.images.decode import Spend, decode
from score.settings import WidePixels
from score.wording.quoting import shown

Pixels = npt.NDArray[np.uint8]
Channels = npt.NDArray[np.float64]

_LARGEST_SIDE = 10_000  # pixels; models want some hundreds
_ENOUGH = 2  # times the model's size, to which a JPEG may be decoded smaller than it is
BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """The image processor of a model.

    resize: shortest edge (an int) or (height, width); None does not resize.
    crop: (height, width) around the centre; None does not crop.
    rescale: factor on the 0…255 values, None for none; mean, std: per channel, None for none.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: Image.Resampling
    rescale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessor:
        """From a `preprocessor_config.json`, old spellings included. Raises ModelError.

        Images are converted to RGB whatever `do_convert_rgb` says: without it transformers fails on
        every image that is not RGB.
        """
        try:
            whole = processors.complete(config)
            normalize = whole["do_normalize"]
            return cls(
                resize=_resize(whole["size"]) if whole["do_resize"] else None,
                crop=_pair(whole["crop_size"]) if whole["do_center_crop"] else None,
                resample=_resampling(whole["resample"]),
                rescale=_channels(whole["rescale_factor"], least=1e-9)[0]
                if whole["do_rescale"]
                else None,
                mean=_channels(whole["image_mean"]) if normalize else None,
                std=_channels(whole["image_std"], least=1e-6) if normalize else None,
            )
        except ModelError as error:
            raise ModelError(f"preprocessor_config.json: {error}") from error
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ModelError(f"unusable preprocessor_config.json: {str(error)[:200]}") from error

    def config(self) -> dict[str, Any]:
        """The `preprocessor_config.json` that says all of this."""
        crop = {"height": self.crop[0], "width": self.crop[1]} if self.crop else None
        size = (
            {"height": self.resize[0], "width": self.resize[1]}
            if isinstance(self.resize, tuple)
            else {"shortest_edge": self.resize}
        )
        return {
            "do_center_crop": crop is not None,
            "do_convert_rgb": True,
            "do_normalize": self.mean is not None,
            "do_rescale": self.rescale is not None,
            "do_resize": self.resize is not None,
            "image_processor_type": "CLIPImageProcessor",
            "resample": int(self.resample),
            **({"crop_size": crop} if crop else {}),
            **({"size": size} if self.resize is not None else {}),
            **({"rescale_factor": self.rescale} if self.rescale is not None else {}),
            **({"image_mean": self.mean, "image_std": self.std} if self.mean is not None else {}),
        }

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every prepared image. Raises ModelError where it is not fixed."""
        if self.crop:
            return self.crop
        if isinstance(self.resize, tuple):
            return self.resize
        raise ModelError("preprocessor_config.json fixes no image size")

    def read(
        self,
        data: bytes,
        max_pixels: int,
        *,
        exif_orientation: bool = False,
        wide: WidePixels = "scale",
        fast: bool = False,
        spend: Spend | None = None,
    ) -> Pixels:
        """An image's bytes → uint8 [height, width, 3]. Raises as `decode` and `pixels` do.

        `wide`: what becomes of more than 8 bits a channel, as `depth.narrow` has it. `fast` reads
        a JPEG that is much larger than the model's size at a half, a quarter or an eighth of its
        own, as the format allows, never below twice the model's, and resizes no more than the crop:
        other pixels than the reference's, by a level or so. `spend`: as in `decode`.
        """
        image = decode(
            data,
            max_pixels,
            exif_orientation=exif_orientation,
            wide=wide,
            draft=self._draft if fast else None,
            spend=spend,
        )
        return self._cropped(image, max_pixels) if fast else self.pixels(image, max_pixels)

    def _draft(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) to which a JPEG may be decoded smaller than it is."""
        if self.resize is None:
            return size
        width, height = self._resized(size)
        return _ENOUGH * width, _ENOUGH * height

    def _cropped(self, image: Image.Image, max_pixels: int) -> Pixels:
        """As `pixels`, without computing pixels outside the crop."""
        if self.resize is None or self.crop is None:
            return self.pixels(image, max_pixels)
        (width, height), (rows, columns) = self._resized(image.size), self.crop
        if rows > height or columns > width or width * height > max_pixels:
            return self.pixels(image, max_pixels)
        top, left = (height - rows) // 2, (width - columns) // 2
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + columns) * x, (top + rows) * y)
        return np.asarray(image.resize((columns, rows), self.resample, box))

    def pixels(self, image: Image.Image, max_pixels: int) -> Pixels:
        """An RGB image resized and cropped: uint8 [height, width, 3]. Raises TooManyPixels."""
        if self.resize is not None:
            width, height = self._resized(image.size)
            if width * height > max_pixels:
                raise TooManyPixels(
                    f"{image.width}×{image.height} is so narrow that the model's size makes it "
                    f"{width}×{height}"
                )
            if (width, height) != image.size:
                image = image.resize((width, height), self.resample)
        pixels = np.asarray(image)
        return _center_crop(pixels, self.crop) if self.crop else pixels

    def normalisation(self) -> tuple[Channels, Channels]:
        """(factors, offsets), float64 [3]: a value v of 0…255 becomes factor · v + offset.

        Rescaling, then normalising, as `transformers.image_transforms` does one after the other.
        """
        factor = 1.0 if self.rescale is None else self.rescale
        if self.mean is None or self.std is None:
            return np.full(3, factor), np.zeros(3)
        mean, std = np.array(self.mean), np.array(self.std)
        return factor / std, -mean / std

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) after resizing; the long edge is rounded down, as the reference does."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        edge, (width, height) = self.resize or 0, size
        if width <= height:
            return edge, int(edge * height / width)
        return int(edge * width / height), edge


def _center_crop(pixels: Pixels, crop: tuple[int, int]) -> Pixels:
    """The centre of an image; black where the image is smaller than the crop."""
    height, width = pixels.shape[:2]
    rows, columns = crop
    top, left = (height - rows) // 2, (width - columns) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + rows, left : left + columns]
    canvas = np.zeros((max(rows, height), max(columns, width), 3), dtype=np.uint8)
    above, before = (
        math.ceil((canvas.shape[0] - height) / 2),
        math.ceil((canvas.shape[1] - width) / 2),
    )
    canvas[above : above + height, before : before + width] = pixels
    top, left = top + above, left + before
    return canvas[max(0, top) : top + rows, max(0, left) : left + columns]


def _resampling(value: Any) -> Image.Resampling:
    if isinstance(value, bool):
        raise ValueError(f"resample {value}")
    return Image.Resampling(value)


def _resize(size: object) -> int | tuple[int, int]:
    if isinstance(size, int):
        return _side(size)
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return _side(size["shortest_edge"])
    return _pair(size)


def _pair(size: object) -> tuple[int, int]:
    if isinstance(size, int):
        return _side(size), _side(size)
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return _side(size["height"]), _side(size["width"])
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        return _side(size[0]), _side(size[1])
    raise ValueError(f"size {shown(size)}")


def _side(value: Any) -> int:
    side = 0 if isinstance(value, bool) else int(value)
    if not 0 < side <= _LARGEST_SIDE:
        raise ValueError(f"a side of {shown(value)} pixels")
    return side


def _channels(values: Any, least: float = -math.inf) -> tuple[float, ...]:
    several = [values] * 3 if isinstance(values, (int, float)) else list(values)
    numbers = [v for v in several if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(several) != 3 or len(numbers) != 3:
        raise ValueError(f"{shown(values)} is not a value for each of three channels")
    if not all(math.isfinite(value) and value >= least for value in numbers):
        raise ValueError(f"{shown(values)} is not finite, or too small")
    return tuple(float(value) for value in numbers)
