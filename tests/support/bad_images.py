"""Malformed images (wrong headers, decompression bombs, truncated files), and valid ones."""

from __future__ import annotations

import functools
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from tests.support.images import random_image


def whole(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """An image of random pixels."""
    return Image.open(io.BytesIO(random_image(seed, size)))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def exif_of(orientation: int = 6) -> Image.Exif:
    """EXIF of an orientation and a text."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description"
    return exif


def _animated(format: str) -> bytes:
    return encoded(whole(), format, save_all=True, append_images=[whole(1)])


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(whole(), "JPEG"),
    "JPEG progressive": lambda: encoded(whole(), "JPEG", progressive=True),
    "JPEG grey": lambda: encoded(whole().convert("L"), "JPEG"),
    "JPEG CMYK": lambda: encoded(whole().convert("CMYK"), "JPEG"),
    "JPEG EXIF": lambda: encoded(whole(), "JPEG", exif=exif_of()),
    "MPO": lambda: _animated("MPO"),
    "PNG": lambda: encoded(whole(), "PNG"),
    "PNG palette": lambda: encoded(whole().convert("P"), "PNG", transparency=3),
    "PNG grey alpha": lambda: encoded(whole().convert("LA"), "PNG", exif=exif_of()),
    "PNG 16 bit": lambda: encoded(whole().convert("L").convert("I;16"), "PNG"),
    "PNG 1 bit": lambda: encoded(whole().convert("1"), "PNG"),
    "APNG": lambda: _animated("PNG"),
    "GIF": lambda: encoded(whole(), "GIF"),
    "GIF animated": lambda: _animated("GIF"),
    "WEBP": lambda: encoded(whole(), "WEBP"),
    "WEBP lossless": lambda: encoded(whole().convert("RGBA"), "WEBP", lossless=True),
    "WEBP animated": lambda: _animated("WEBP"),
    "AVIF": lambda: encoded(whole(), "AVIF"),
    "BMP": lambda: encoded(whole(), "BMP"),
    "BMP palette": lambda: encoded(whole().convert("P"), "BMP"),
    "TIFF": lambda: encoded(whole(), "TIFF"),
    "TIFF LZW": lambda: encoded(whole(), "TIFF", compression="tiff_lzw"),
    "TIFF JPEG": lambda: encoded(whole(), "TIFF", compression="jpeg"),
    "TIFF EXIF": lambda: encoded(whole(), "TIFF", exif=exif_of()),
    "TIFF 16 bit": lambda: encoded(whole().convert("L").convert("I;16"), "TIFF"),
    "TIFF float": lambda: encoded(whole().convert("F").point(lambda v: v / 256 + 0), "TIFF"),
    "JPEG2000": lambda: encoded(whole(), "JPEG2000"),
    "PPM": lambda: encoded(whole(), "PPM"),
    "PPM plain": lambda: b"P3 40 30 255 " + b"1 2 3 " * 1200,
}
"""Valid files: every allowed format, in each variant that decoders treat differently."""

OTHER_FORMATS: dict[str, Callable[[], bytes]] = {
    "EPS": lambda: encoded(whole(), "EPS"),
    "ICO": lambda: encoded(whole(), "ICO", sizes=[(16, 16)]),
    "PDF": lambda: encoded(whole(), "PDF"),
    "TGA": lambda: encoded(whole(), "TGA"),
    "PCX": lambda: encoded(whole(), "PCX"),
    "SGI": lambda: encoded(whole(), "SGI"),
    "HEIC": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "XML": lambda: b'<?xml version="1.0"?>\n<svg/>',
    "HTML": lambda: b"  <!DOCTYPE HTML>\n<html></html>",
    "JSON": lambda: b'{"image": "cat"}',
    "text": lambda: b"cat.jpg",
    "zip": lambda: b"PK\x03\x04" + bytes(100),
    "zeros": lambda: bytes(1000),
    "one byte": lambda: b"\xff",
    "nothing": lambda: b"",
}
"""Files of formats that are not allowed."""


def halves() -> Iterator[tuple[str, bytes]]:
    """(name, first half) of a file of each format whose decoder detects truncation."""
    for name in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "TIFF LZW", "PPM"):
        data = FILES[name]()
        yield name, data[: len(data) // 2]


# -- PNG ---------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], *chunks: bytes, bits: int = 1, colour: int = 0) -> bytes:
    """A PNG of these chunks; one bit per pixel by default."""
    start = chunk(b"IHDR", struct.pack(">IIBB", *size, bits, colour) + bytes(3))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(chunks) + chunk(b"IEND", b"")


def png_bomb(side: int) -> bytes:
    """A PNG of `side`×`side` pixels that is compressed to a thousandth of a byte per pixel."""
    rows = bytes((side + 7) // 8 + 1) * side
    return png((side, side), chunk(b"IDAT", zlib.compress(rows, 9)))


# -- TIFF --------------------------------------------------------------------------------------

_BYTE_COUNTS, _OFFSETS = 325, 324


def tiff(tags: dict[int, int], data: bytes) -> bytes:
    """A grey TIFF with more tags; tiles or strips start after its header."""
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, **tags}
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [
        struct.pack("<HHII", tag, 4, 1, start if value < 0 else value)
        for tag, value in sorted(tags.items())
    ]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return head + b"".join(entries) + bytes(4) + data


def tiff_tile_bomb(side: int) -> bytes:
    """10×10 pixels in the corner of a tile of `side`×`side`, compressed to a thousandth."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    return tiff({322: side, 323: side, _OFFSETS: -1, _BYTE_COUNTS: len(packed)}, packed)


def tiff_of(tags: Mapping[int, tuple[int, int, int | bytes]], data: bytes = b"") -> bytes:
    """A TIFF of tags (kind, count, value); values of more than 4 bytes are stored behind the tags.

    Tags of `GREY` are added. `data` starts at `TIFF_DATA`, if the values end before it.
    """
    entries, values = b"", b""
    start = 8 + 2 + 12 * len({**GREY, **tags}) + 4
    for number, (kind, count, value) in sorted({**GREY, **tags}.items()):
        if isinstance(value, bytes):
            entries += struct.pack("<HHII", number, kind, count, start + len(values))
            values += value
        else:
            entries += struct.pack("<HHII", number, kind, count, value)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries) // 12) + entries + bytes(4)
    return (head + values).ljust(TIFF_DATA, b"\0") + data


_LONG = 4
GREY: dict[int, tuple[int, int, int | bytes]] = {
    number: (_LONG, 1, value)
    for number, value in ((256, 10), (257, 10), (258, 8), (259, 1), (262, 1), (277, 1))
}
TIFF_DATA = 1024


def longs(*values: int, times: int = 1) -> tuple[int, int, bytes]:
    """A tag's values of 4 bytes, repeated."""
    return _LONG, len(values) * times, struct.pack(f"<{len(values)}I", *values) * times


def fax_of_damaged_rows(height: int) -> bytes:
    """A kilobyte of fax code in which libtiff finds something wrong in every tenth row."""
    code = b"\xaa" * 1000
    tags = {257: height, 258: 1, 259: 4, 278: height, 273: -1, 279: len(code)}
    return tiff({256: 8, **tags}, code)


# -- JPEG --------------------------------------------------------------------------------------


def jpeg_of_scans(size: tuple[int, int], more: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: a few bytes cost a pass over all pixels."""
    data = encoded(Image.new("L", size), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * more + data[-2:]


# -- JPEG 2000 ---------------------------------------------------------------------------------


def jpeg2000_of_tiles(image: Image.Image, side: int, **options: object) -> bytes:
    """A JPEG 2000 whose header says that it is made of tiles of `side`×`side` pixels."""
    data = encoded(image, "JPEG2000", **options)
    return patched(data, data.index(b"\xff\x51") + 22, struct.pack(">II", side, side))


def jpeg2000_of_packets(image: Image.Image, layers: int, side: int | None = None) -> bytes:
    """A JPEG 2000 whose header states layers and the logarithm of the sides of precincts."""
    data = encoded(image, "JPEG2000", no_jp2=True)
    at = data.index(b"\xff\x52")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    style = bytearray(data[at + 4 : at + 2 + length])
    style[2:4] = struct.pack(">H", layers)
    if side is not None:
        style[0] |= 1
        style += bytes([side << 4 | side]) * (style[5] + 1)
    style[:0] = struct.pack(">H", len(style) + 2)
    data = data[: at + 2] + style + data[at + 2 + length :]
    return patched(data, data.index(b"\xff\x90") + 6, bytes(4))  # the tile is what is left


# -- others ------------------------------------------------------------------------------------


def patched(data: bytes, at: int, patch: bytes) -> bytes:
    return data[:at] + patch + data[at + len(patch) :]


@functools.cache
def gif_bomb() -> bytes:
    """A frame far larger than the screen in the header."""
    data = encoded(Image.new("L", (10, 10)), "GIF")
    frame = re.search(rb",\0\0\0\0\x0a\0\x0a\0", data)
    assert frame
    return patched(data, frame.start() + 5, struct.pack("<HH", 65535, 65535))


def webp_bomb() -> bytes:
    """A small frame on the largest possible canvas."""
    data = _animated("WEBP")
    return patched(data, data.index(b"VP8X") + 12, (16382).to_bytes(3, "little") * 2)


def jpeg2000_bomb() -> bytes:
    """A header of 10×10 pixels around a codestream of 20,000×20,000."""
    data = encoded(Image.new("L", (64, 64)), "JPEG2000")
    side = struct.pack(">II", 20_000, 20_000)
    stream = data.index(b"\xff\x51")
    data = patched(patched(data, stream + 6, side), stream + 22, side)
    return patched(data, data.index(b"ihdr") + 4, struct.pack(">II", 10, 10))


def bmp_bomb() -> bytes:
    data = encoded(whole(), "BMP")
    return patched(data, 18, struct.pack("<ii", 60_000, 60_000))


def bmp_of_runs(size: tuple[int, int], runs: bytes) -> bytes:
    """A BMP of 256 greys, its pixels compressed as runs: a length and a colour, a byte each."""
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    start = 54 + len(palette)
    head = struct.pack("<IHHI", start + len(runs), 0, 0, start)
    shape = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + head + shape + palette + runs
