"""Bytes → RGB → uint8 pixels, as transformers' PIL image processor makes them, bit for bit.

What happens to an image is the model folder's to say (`preprocessor_config.json`). The steps,
their order and their rounding are those of transformers' PIL image processors (5.x): convert to
RGB (transparency over white), resize, crop or pad to the centre. Rescaling and normalising are left
to the model, whose first weights take them in (`towers`). On purpose there is one difference:
images of more than 8 bits a channel are scaled, not clipped (`depth`).

Knows nothing of torch or URLs.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from score.errors import ModelError, NotAnImage, RowError, TooManyPixels, TruncatedImage
from score.images import decoder_errors, depth, metadata, pillow_warnings, processors
from score.settings import WidePixels

Pixels = npt.NDArray[np.uint8]
Channels = npt.NDArray[np.float64]
Draft = Callable[[tuple[int, int]], tuple[int, int]]
"""An image's (width, height) → the least that will do."""

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM")
"""The formats that may be opened. Others hide dangers: EPS runs a program, ICO lies about sizes.

(MPO, a phone's JPEG with more images behind it, is opened as the JPEG it begins with.)
"""

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".mpo"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
ENDINGS = frozenset(ending for endings in _ENDINGS.values() for ending in endings)
"""The file name endings of those formats, in lower case."""

# How the formats begin that can be told by their beginning; BMP's and PPM's two letters cannot.
_SIGNATURES = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<GIF>GIF8[79]a)"
    rb"|(?P<WEBP>RIFF....WEBP)|(?P<AVIF>....ftypavi[fs])|(?P<TIFF>II\*\0|MM\0\*|II\+\0|MM\0\+)"
    rb"|(?P<JPEG2000>\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)",
    re.DOTALL,
)

# A JPEG may paint over itself in scans: 75 bytes cost a pass over all its pixels. Cameras and web
# tools write 1 to 14 scans.
_MOST_SCANS = 1000
_SCANS_OF_LARGEST = 20
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_TILE_WIDTH, _TILE_LENGTH = 322, 323

CLIP_MEAN, CLIP_STD = processors.CLIP_MEAN, processors.CLIP_STD
_LARGEST_SIDE = 10_000  # pixels; models want some hundreds
_ENOUGH = 2  # times the model's size, to make its image from
BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """How a model wants its images.

    resize: shortest edge (an int) or (height, width); None leaves the size alone.
    crop: (height, width) around the centre; None leaves all.
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

        `do_convert_rgb` is taken for granted: without it transformers fails on every image that
        is not RGB already, and does the same to those that are.
        """
        try:
            whole = processors.complete(config)
            normalize = whole["do_normalize"]
            return cls(
                resize=_resize(whole["size"]) if whole["do_resize"] else None,
                crop=_pair(whole["crop_size"]) if whole["do_center_crop"] else None,
                resample=Image.Resampling(whole["resample"]),
                rescale=_channels(whole["rescale_factor"], least=1e-9)[0]
                if whole["do_rescale"]
                else None,
                mean=_channels(whole["image_mean"]) if normalize else None,
                std=_channels(whole["image_std"], least=1e-6) if normalize else None,
            )
        except ModelError as error:
            raise ModelError(f"preprocessor_config.json: {error}") from error
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ModelError(f"unusable preprocessor_config.json: {error}") from error

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
    ) -> Pixels:
        """An image's bytes → uint8 [height, width, 3]. Raises as `decode` and `pixels` do.

        `wide`: what becomes of more than 8 bits a channel, as `depth.narrow` has it. `fast` reads
        a JPEG that is much larger than the model's size at a half, a quarter or an eighth of its
        own, as the format allows, never below twice the model's, and resizes no more than the crop:
        other pixels than the reference's, by a level or so.
        """
        image = decode(
            data,
            max_pixels,
            exif_orientation=exif_orientation,
            wide=wide,
            draft=self._draft if fast else None,
        )
        return self._cropped(image, max_pixels) if fast else self.pixels(image, max_pixels)

    def _draft(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that are enough to make the model's image from."""
        if self.resize is None:
            return size
        width, height = self._resized(size)
        return _ENOUGH * width, _ENOUGH * height

    def _cropped(self, image: Image.Image, max_pixels: int) -> Pixels:
        """As `pixels`; what the crop throws away is not computed."""
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


def decode(
    data: bytes,
    max_pixels: int,
    *,
    exif_orientation: bool = False,
    wide: WidePixels = "scale",
    draft: Draft | None = None,
) -> Image.Image:
    """The image's first frame in RGB.

    Its size is checked before any pixel is decoded. `wide`: as `depth.narrow` has it. `draft`: a
    JPEG is read at a fraction of its size, no smaller than this. Raises NotAnImage, TruncatedImage,
    TooManyPixels.
    """
    with pillow_warnings.ignored():
        return _decode(data, max_pixels, exif_orientation, wide, draft)


def _decode(
    data: bytes, max_pixels: int, exif_orientation: bool, wide: WidePixels, draft: Draft | None
) -> Image.Image:
    image = _open(data)
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"{width}×{height} is more than {max_pixels:,} pixels")
    _check_tiles(image, max_pixels)
    _check_scans(image, data, max_pixels)
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
    return _ENDINGS[_open(data).format or ""][0]


def is_wide(data: bytes) -> bool:
    """Whether an image has more than the 8 bits a channel that most programs show."""
    return _open(data).mode in depth.WIDE


def as_png(image: Image.Image) -> bytes:
    """A decoded image as a file, without loss."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


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
        raise decoder_errors.row_error(_signed(data) or "image", error) from error


def _signed(data: bytes) -> str | None:
    """The format that a file begins as."""
    signature = _SIGNATURES.match(data)
    return signature.lastgroup if signature else None


def _unidentified(data: bytes) -> RowError:
    """Why no reader took a file. Pillow keeps its reader's reason to itself; it is asked again."""
    name = _signed(data)
    if name is None:
        return NotAnImage(_guess(data))
    try:
        Image.OPEN[name][0](io.BytesIO(data), "")
    except decoder_errors.ERRORS as error:
        return decoder_errors.row_error(name, error)
    return TruncatedImage(f"the {name}'s header is damaged")


def _check_tiles(image: Image.Image, max_pixels: int) -> None:
    """A TIFF of 10×10 pixels may say that they lie in the corner of a 40,000×40,000 tile."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if isinstance(width, int) and isinstance(length, int) and width * length > max_pixels:
        raise TooManyPixels(f"its tiles of {width}×{length} are more than {max_pixels:,} pixels")


def _check_scans(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Bounds the passes over a JPEG's pixels: many over a small image, few over the largest."""
    if image.format not in ("JPEG", "MPO"):
        return
    most = min(_MOST_SCANS, _SCANS_OF_LARGEST * max_pixels // (image.width * image.height))
    # The count of a scan's first bytes is quick, but finds them in metadata, too.
    if data.count(b"\xff\xda") > most and _scans(data, most) > most:
        raise TooManyPixels(f"{image.width}×{image.height} painted over more than {most} times")


def _scans(data: bytes, most: int) -> int:
    """How many scans a JPEG has; stops counting beyond `most`."""
    scans, position = 0, 2
    while scans <= most and (found := _JPEG_MARKER.search(data, position)):
        marker, position = found[1], found.end()
        if marker == b"\xd9":
            break
        scans += marker == b"\xda"
        if marker not in (b"\x01", b"\xd8"):
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


def _guess(data: bytes) -> str:
    """Why bytes are no image, as far as their beginning tells."""
    if not data:
        return "0 bytes"
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or SVG, not an image of pixels"
    if head.startswith((b"{", b"[")):
        return "looks like JSON, not an image"
    return f"{len(data):,} bytes that are no image in {', '.join(FORMATS)}"


def _rgb(image: Image.Image) -> Image.Image:
    """RGB, transparency composited over white."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        upper = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, upper).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


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
    raise ValueError(f"size {size!r}")


def _side(value: Any) -> int:
    side = int(value)
    if not 0 < side <= _LARGEST_SIDE:
        raise ValueError(f"a side of {side} pixels")
    return side


def _channels(values: Any, least: float = -math.inf) -> tuple[float, ...]:
    several = [values] * 3 if isinstance(values, (int, float)) else list(values)
    if len(several) != 3 or not all(isinstance(value, (int, float)) for value in several):
        raise ValueError(f"{values!r} is not a value for each of three channels")
    if not all(math.isfinite(value) and value >= least for value in several):
        raise ValueError(f"{values!r} is not finite, or too small")
    return tuple(float(value) for value in several)
