"""How often a JPEG paints its pixels, by itself or in a TIFF, known before a decoder reads them.

A progressive JPEG has several scans: each costs 75 bytes and a pass over all pixels. Cameras and
web tools write 1 to 14 scans.

Knows markers; nothing of pixels.
"""

from __future__ import annotations

from score.errors import TooManyPixels
from score.images.metadata import MARKER
from score.images.tiff import Tags

_MOST_SCANS = 1000
_SCANS_OF_LARGEST = 20
_SCAN = b"\xff\xda"
_BLOCK = 32  # pixels: a JPEG is made of blocks of up to 32×32


def check_scans(data: bytes, width: int, height: int, max_pixels: int) -> None:
    """Bounds a JPEG's scans: 1000 for a small one, 20 for one of `max_pixels`.

    Raises TooManyPixels.
    """
    pixels = _padded(width) * _padded(height)
    most = _most(pixels, max_pixels)
    # Counting the marker's bytes is fast, but counts those in metadata, too.
    if data.count(_SCAN) > most and _scans(data, most) > most:
        raise _too_many(pixels, most)


def check_strips(data: bytes, tags: Tags, width: int, height: int, max_pixels: int) -> None:
    """Bounds the scans of each JPEG that a TIFF's first image is made of, as `check_scans` does.

    Raises TooManyPixels, also for JPEGs that are larger together than the file.
    """
    strips = tags.jpeg_strips()
    # Each is searched: many that overlap would take as long as they are together.
    if sum(len(range(*strip.indices(len(data)))) for strip in strips) > 2 * len(data):
        raise TooManyPixels("the TIFF's strips are larger together than the file")
    number, across, down = tags.strips()
    pixels = max(width * height, number * max(across, _BLOCK) * max(down, _BLOCK))
    most = _most(pixels, max_pixels)
    if any(data.count(_SCAN, strip.start, strip.stop) > most for strip in strips):
        raise _too_many(pixels, most)


def _most(pixels: int, max_pixels: int) -> int:
    return min(_MOST_SCANS, max(_SCANS_OF_LARGEST, _SCANS_OF_LARGEST * max_pixels // pixels))


def _too_many(pixels: int, most: int) -> TooManyPixels:
    return TooManyPixels(f"{pixels:,} pixels painted over more than {most} times")


def _padded(side: int) -> int:
    """A side in whole blocks."""
    return -(-side // _BLOCK) * _BLOCK


def _scans(data: bytes, most: int) -> int:
    """How many scans a JPEG has; stops counting beyond `most`."""
    scans, position = 0, 2
    while scans <= most and (match := MARKER.search(data, position)):
        marker, position = match[1], match.end()
        if marker == b"\xd9":
            break
        scans += marker == b"\xda"
        if marker not in (b"\x01", b"\xd8"):
            position += int.from_bytes(data[position : position + 2], "big")
    return scans
