"""Images of more than 8 bits a channel → 8 bits, which models were trained on.

transformers leaves that to Pillow, which clips: in a 16-bit grey image all but the 255 darkest
levels become white, and floats from 0 to 1 become black. Only here do pixels differ from the
reference on purpose. Values between black and white are scaled to the nearest of 256 levels,
`round(v * 255 / white)`: the rescaling that the PNG specification (third edition, 13.12) calls the
most accurate, and the exact inverse of `v * 257`, by which programs widen 8 bits to 16.

Colour of 16 bits a channel reaches us as 8: Pillow cuts it to its upper byte (PNG, TIFF) or scales
it (PPM, JPEG 2000), for the reference as for us.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from score.errors import NotAnImage
from score.settings import WidePixels

_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")  # in each order of bytes
WIDE = (*_SIXTEEN, "I", "F")
"""Pillow's modes of grey with more than 8 bits."""

_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0

# How far outside 0…1 floats may be: rounding errors of interpolation in float32.
_ROUNDING = 1e-6

_ADVICE = "convert it to 8 bits, or set wide_pixels=reference to have it clipped"


def narrow(image: Image.Image, wide: WidePixels) -> Image.Image:
    """A loaded image in 8 bits a channel: itself, unless it is grey with more than 8 bits.

    `wide`: "scale" scales it as above, "reference" leaves it for Pillow to clip, "error" refuses
    it. Raises NotAnImage for a refused image, and for values whose white is unknown: signed or
    32-bit integers, floats outside 0…1.
    """
    if wide == "reference" or image.mode not in WIDE:
        return image
    if wide == "error":
        raise NotAnImage(f"its pixels are {_kind(image)}, not of 8 bits; wide_pixels=error refuses")
    values, white = np.asarray(image), _white(image)
    levels = values * np.float32(255 / white)
    if image.format == "TIFF" and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        np.subtract(np.float32(255), levels, out=levels)
    pixels = np.rint(levels, out=levels).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        pixels[values == transparent] = 255  # over white, as in 8 bits
    narrowed = Image.fromarray(pixels)
    narrowed.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return narrowed


def _white(image: Image.Image) -> float:
    """The value of white. Raises NotAnImage where it is unknown."""
    if image.mode == "F":
        _check_order(image)
        _check_floats(np.asarray(image))
        return 1
    if image.mode in _SIXTEEN:
        # A TIFF of 12 bits comes with its own numbers; JPEG 2000 and PGM are spread to 16 bits.
        return 4095 if image.format == "TIFF" and _tag(image, _BITS) == (12,) else 65535
    if image.format == "PPM":
        return 65535
    raise NotAnImage(
        f"its pixels are {_kind(image)}, and nothing says which of them is white; {_ADVICE}"
    )


def _check_order(image: Image.Image) -> None:
    """Pillow 13 swaps the bytes of a compressed big-endian TIFF's floats once too often."""
    big = getattr(getattr(image, "tag_v2", None), "prefix", b"") == b"MM"
    if big and image.info.get("compression") != "raw":
        raise NotAnImage("its pixels are big-endian floats in a compressed TIFF, which are misread")


def _check_floats(values: npt.NDArray[np.float32]) -> None:
    low, high = float(values.min()), float(values.max())
    if math.isnan(low) or math.isnan(high):
        raise NotAnImage("its pixels are floats, and some are NaN")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise NotAnImage(
            f"its pixels are floats from {low:.9g} to {high:.9g}, not from 0 to 1; {_ADVICE}"
        )


def _tag(image: Image.Image, number: int) -> object:
    return getattr(image, "tag_v2", {}).get(number)


def _kind(image: Image.Image) -> str:
    if image.mode == "F":
        return "floats"
    if image.mode == "I" and image.format != "PPM":
        return "integers with a sign or of 32 bits"
    return "of up to 16 bits"
