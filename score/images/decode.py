"""Image bytes → RGB, the first frame, in bounded time and memory.

Conversion to RGB is that of transformers' PIL image processors, transparency composited over
white. On purpose there is one difference: images of more than 8 bits a channel are scaled, not
clipped (`depth`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from PIL import Image, ImageOps, UnidentifiedImageError

from score.errors import NotAnImage, RowError, TooManyPixels, TruncatedImage
from score.images import decoder_errors, depth, metadata, pillow_warnings
from score.images.formats import FORMAT_ENDINGS, FORMATS, guess, signed
from score.settings import WidePixels

Draft = Callable[[tuple[int, int]], tuple[int, int]]
"""An image's (width, height) → the smallest size that suffices."""
Spend = Callable[[int], None]
"""Called with an image's number of pixels before they are decoded. Raises TooManyPixels."""

# A progressive JPEG has several scans: each costs 75 bytes and a pass over all pixels. Cameras and
# web tools write 1 to 14 scans.
_MOST_SCANS = 1000
_SCANS_OF_LARGEST = 20
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_TILE_WIDTH, _TILE_LENGTH = 322, 323


def decode(
    data: bytes,
    max_pixels: int,
    *,
    exif_orientation: bool = False,
    wide: WidePixels = "scale",
    draft: Draft | None = None,
    spend: Spend | None = None,
) -> Image.Image:
    """The image's first frame in RGB.

    Its cost is checked before any pixel is decoded. `wide`: as in `depth.narrow`. `draft`: maps the
    image's (width, height) to the smallest size that suffices, which lets a JPEG be decoded at an
    eighth, a quarter or a half. Raises NotAnImage, TruncatedImage, TooManyPixels.
    """
    with pillow_warnings.ignored():
        image = _open(data)
        _check(image, data, max_pixels)
        if spend:
            spend(image.width * image.height)
        return _loaded(image, exif_orientation, wide, draft)


def _check(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Bounds what decoding costs."""
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"{width}×{height} is more than {max_pixels:,} pixels")
    _check_tiles(image, max_pixels)
    _check_scans(image, data, max_pixels)


def _loaded(
    image: Image.Image, exif_orientation: bool, wide: WidePixels, draft: Draft | None
) -> Image.Image:
    width, height = image.size
    try:
        if draft:
            image.draft(None, draft(image.size))
        image.load()
        narrowed = depth.narrow(image, wide)
        if exif_orientation:
            narrowed = ImageOps.exif_transpose(narrowed)
        return _rgb(narrowed)
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except MemoryError as error:
        raise TooManyPixels(f"{width}×{height} does not fit in memory") from error
    except decoder_errors.ERRORS as error:
        raise decoder_errors.row_error(image.format or "image", error) from error


def ending(data: bytes) -> str:
    """The usual file name ending of an image's format, such as `.jpg`. Raises as `decode`."""
    return FORMAT_ENDINGS[_open(data).format or ""][0]


def is_wide(data: bytes) -> bool:
    """Whether an image has more than the 8 bits a channel that most programs show."""
    return _open(data).mode in depth.WIDE


def _open(data: bytes) -> Image.Image:
    data = metadata.without(data)
    try:
        with pillow_warnings.ignored():
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(str(error)) from error
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except MemoryError as error:
        raise TooManyPixels("the image does not fit in memory") from error
    except decoder_errors.ERRORS as error:
        raise decoder_errors.row_error(signed(data) or "image", error) from error


def _unidentified(data: bytes) -> RowError:
    """Why no reader took a file: Pillow hides its reader's error, so the reader is called again."""
    name = signed(data)
    if name is None:
        return NotAnImage(guess(data))
    try:
        Image.OPEN[name][0](io.BytesIO(data), "")
    except decoder_errors.ERRORS as error:
        return decoder_errors.row_error(name, error)
    return TruncatedImage(f"the {name}'s header is damaged")


def _check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Bounds a TIFF's tiles: a 10×10 image may be the corner of a 40,000×40,000 tile."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if isinstance(width, int) and isinstance(length, int) and width * length > max_pixels:
        raise TooManyPixels(f"its tiles of {width}×{length} are more than {max_pixels:,} pixels")


def _check_scans(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Bounds a JPEG's scans: 1000 for a small image, 20 for one of `max_pixels`."""
    if image.format not in ("JPEG", "MPO"):
        return
    most = min(_MOST_SCANS, _SCANS_OF_LARGEST * max_pixels // (image.width * image.height))
    # Counting the marker's bytes is fast, but counts those in metadata, too.
    if data.count(b"\xff\xda") > most and _scans(data, most) > most:
        raise TooManyPixels(f"{image.width}×{image.height} painted over more than {most} times")


def _scans(data: bytes, most: int) -> int:
    """How many scans a JPEG has; stops counting beyond `most`."""
    scans, position = 0, 2
    while scans <= most and (match := _JPEG_MARKER.search(data, position)):
        marker, position = match[1], match.end()
        if marker == b"\xd9":
            break
        scans += marker == b"\xda"
        if marker not in (b"\x01", b"\xd8"):
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


def _rgb(image: Image.Image) -> Image.Image:
    """RGB, transparency composited over white."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        upper = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, upper).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
