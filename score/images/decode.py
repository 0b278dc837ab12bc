"""Image bytes → RGB, the first frame, in bounded time and memory.

Conversion to RGB is that of transformers' PIL image processors, transparency composited over
white. On purpose there is one difference: images of more than 8 bits a channel are scaled, not
clipped (`depth`).
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import ExifTags, Image, UnidentifiedImageError

from score.errors import NotAnImage, RowError, TooManyPixels, TruncatedImage
from score.images import (
    avif,
    decoder_errors,
    decoder_process,
    depth,
    jpeg,
    jpeg2000,
    libtiff_messages,
    metadata,
    pillow_warnings,
    structure,
)
from score.images.formats import FORMAT_ENDINGS, FORMATS, guess, signed
from score.images.tiff import Tags
from score.settings import WidePixels

Draft = Callable[[tuple[int, int]], tuple[int, int]]
"""An image's (width, height) → the smallest size that suffices."""
Spend = Callable[[int], None]
"""Called with an image's number of pixels before they are decoded. Raises TooManyPixels."""

_BMP_RUNS = (1, 2)  # BMP's compressions of 8 and 4 bits a pixel
_BMP_HEADER = 2**16  # bytes: header, palette, profile

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

libtiff_messages.silence()


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
            spend(_work(image, data))
        return _loaded(image, data, exif_orientation, wide, draft)


def _check(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Bounds what decoding costs."""
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"{width}×{height} is more than {max_pixels:,} pixels")
    if image.format == "TIFF":
        tags = Tags(data)
        _check_tiles(*tags.tile(), max_pixels)
        jpeg.check_strips(data, tags, width, height, max_pixels)
    elif image.format in ("JPEG", "MPO"):
        jpeg.check_scans(data, width, height, max_pixels)
    elif image.format == "JPEG2000":
        jpeg2000.check_work(data, width * height)
    elif image.format == "AVIF":
        avif.check_frames(data, max_pixels)
    elif image.info.get("compression") in _BMP_RUNS:
        _check_runs(data, width, height)


def _work(image: Image.Image, data: bytes) -> int:
    """Pixels, by the time that their decoding takes: those of a JPEG 2000 count several times."""
    pixels = image.width * image.height
    return jpeg2000.as_pixels(data, pixels) if image.format == "JPEG2000" else pixels


def _loaded(
    image: Image.Image,
    data: bytes,
    exif_orientation: bool,
    wide: WidePixels,
    draft: Draft | None,
) -> Image.Image:
    width, height = image.size
    try:
        if draft:
            image.draft(None, draft(image.size))
        if image.format == "JPEG2000" and jpeg2000.takes_long(data, width * height):
            image = decoder_process.load(image, data)
        else:
            image.load()
        narrowed = depth.narrow(image, wide)
        if exif_orientation:
            narrowed = _upright(narrowed)
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
    structure.check(data)
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


def _check_tiles(width: int, length: int, max_pixels: int) -> None:
    """Bounds a TIFF's tiles: a 10×10 image may be the corner of a 40,000×40,000 tile."""
    if width * length > max_pixels:
        raise TooManyPixels(f"its tiles of {width}×{length} are more than {max_pixels:,} pixels")


def _check_runs(data: bytes, width: int, height: int) -> None:
    """Bounds a BMP's runs of pixels, which Pillow goes on reading when its rows are full."""
    if len(data) > _BMP_HEADER + 2 * height * (width + 2):
        raise TooManyPixels(
            f"the BMP has more than two bytes for each of its {width}×{height} pixels"
        )


def _rgb(image: Image.Image) -> Image.Image:
    """RGB, transparency composited over white."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        upper = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, upper).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says.

    (ImageOps.exif_transpose also writes the EXIF anew, which takes megabytes a thousandfold.)
    """
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)
