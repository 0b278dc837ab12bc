"""How much work a JPEG 2000 file asks for, known before its decoder starts.

A few bytes of a header divide an image into tens of thousands of tiles, or each tile into millions
of packets (one for each layer, component, resolution and precinct), and the decoder allocates
memory for every one of them. OpenJPEG has no bound of its own.

Knows boxes and the headers of a codestream; nothing of pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from score.errors import TooManyPixels
from score.images.boxes import boxes
from score.images.tiling import parts_of

_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_SIZE_MARKER, _STYLE, _COMPONENT_STYLE, _TILE_PART, _DATA, _END = 0x51, 0x52, 0x53, 0x90, 0x93, 0xD9
# As OpenJPEG does, unknown markers are not skipped by the length that they state.
_KNOWN = frozenset(
    b"\x50\x51\x52\x53\x55\x57\x58\x59\x5c\x5d\x5e\x5f\x60\x61\x63\x64\x74\x75\x77\x78"
)

_MOST_SEGMENTS = 20_000  # tile parts are segments, too

# Component tiles and packets: some for any image, and one for so many pixels. Encoders write tiles
# of 128×128 pixels and more.
_TILES, _PIXELS_PER_TILE = 4_000, 1_024
_PACKETS, _PIXELS_PER_PACKET = 20_000, 64


_SECONDS_A_PIXEL, _SECONDS_A_BYTE = 25e-9, 125e-9  # of a core; noise has most bytes
_LONG = 0.03  # seconds
_PIXELS, _PIXELS_A_BYTE = 6, 16  # of a PNG that take as long as one pixel, and one byte of noise


def takes_long(data: bytes, pixels: int) -> bool:
    """Whether other threads would notice how long a file takes to decode."""
    return pixels * _SECONDS_A_PIXEL + len(data) * _SECONDS_A_BYTE > _LONG


def as_pixels(data: bytes, pixels: int) -> int:
    """How many pixels of another format take as long to decode."""
    return _PIXELS * pixels + _PIXELS_A_BYTE * len(data)


def check_boxes(data: bytes) -> None:
    """Bounds the boxes that are read one by one. Raises TooManyPixels."""
    if data.startswith(_SIGNATURE):
        for kind, start, end in boxes(data):
            if kind == b"jp2h":
                for _ in boxes(data, start, end):
                    pass


def check_work(data: bytes, pixels: int) -> None:
    """Bounds tiles and packets by the image's number of pixels. Raises TooManyPixels."""
    start = _codestream(data)
    segments = list(_segments(data, start + 2))
    sizes = [
        content for marker, content in segments if marker == _SIZE_MARKER and len(content) >= 36
    ]
    if not sizes:
        return
    width, height, left, top, across, down, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", sizes[0], 2
    )
    columns = parts_of(width - tile_left, across)
    rows = parts_of(height - tile_top, down)
    tiles, most = columns * rows * components, _TILES + pixels // _PIXELS_PER_TILE
    if tiles > most:
        raise TooManyPixels(
            f"the JPEG 2000 has {columns * rows:,} tiles of {components:,} components, "
            f"too many for {pixels:,} pixels"
        )
    tile = min(across, width - left), min(down, height - top)
    styles = [content for marker, content in segments if marker == _STYLE]
    layers = max((int.from_bytes(style[2:4], "big") for style in styles), default=1)
    # Of a component's own style, the first one or two bytes are the component's number.
    wide = 2 if components > 256 else 1
    precincts = max(
        *(_precincts(style[0], style[5:], tile) for style in styles if len(style) > 5),
        *(
            _precincts(content[wide], content[wide + 1 :], tile)
            for marker, content in segments
            if marker == _COMPONENT_STYLE and len(content) > wide + 1
        ),
        0,
        0,
    )
    packets = tiles * layers * precincts
    if packets > _PACKETS + pixels // _PIXELS_PER_PACKET:
        raise TooManyPixels(
            f"the JPEG 2000 has {packets:,} packets, too many for {pixels:,} pixels"
        )


def _precincts(flags: int, style: bytes, tile: tuple[int, int]) -> int:
    """The precincts of a tile's component in all resolutions.

    `style`: the number of decompositions, four bytes for code blocks, and where the lowest bit of
    `flags` is set the logarithms of each resolution's precinct's sides.
    """
    levels, sides = min(style[0], 32), style[5:]
    if not flags & 1:
        return levels + 1  # precincts are of 32,768×32,768 pixels
    total = 0
    for resolution in range(levels + 1):
        side = sides[resolution] if resolution < len(sides) else 0xFF
        total += parts_of(tile[0], 1 << (levels - resolution + (side & 15))) * parts_of(
            tile[1], 1 << (levels - resolution + (side >> 4))
        )
    return total


def _codestream(data: bytes) -> int:
    """Where the codestream starts, which may be in a box."""
    if data.startswith(_SIGNATURE):
        for kind, start, _ in boxes(data):
            if kind == b"jp2c":
                return start
    return 0


def _segments(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """(marker, content) in the headers of a codestream and of its tile parts."""
    part = at
    for _ in range(_MOST_SEGMENTS):
        if at + 4 > len(data) or data[at + 1] == _END:
            return
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker not in (*_KNOWN, _TILE_PART, _DATA):
            at += 2
            continue
        if marker == _DATA:
            if part <= at or data[part : part + 2] != bytes((0xFF, _TILE_PART)):
                return
            at = part
            continue
        content = data[at + 4 : at + 2 + length]
        if marker == _TILE_PART:
            size = int.from_bytes(content[2:6], "big")
            part = at + size if size else len(data)
        yield marker, content
        at += 2 + max(2, length)
    raise TooManyPixels(f"the JPEG 2000 has more than {_MOST_SEGMENTS:,} headers and tile parts")
