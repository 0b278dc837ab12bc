"""Removes metadata that no pixel depends on from a file before it is decoded.

Pillow fails on damaged or large metadata: more than a megabyte of compressed text or of a colour
profile in a PNG, a damaged Photoshop block or index of further images in a JPEG; and it joins EXIF
segments in quadratic time. One pass over the file's structure, which decompresses one text at most,
leaves out what neither pixels nor their orientation need. Where the structure is cut short or
invalid, the decoder gets enough of the rest to report it.

Knows how PNG and JPEG are laid out; nothing of pixels.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from score.errors import TooManyPixels

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

# Chunks in lower case are ancillary. These change pixels, their order, or the orientation.
_NEEDED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
# Texts that may hold the orientation: XMP, if not compressed, and EXIF as ImageMagick wrote it in
# hexadecimal before PNG had a chunk for it.
_XMP_TEXT = b"XML:com.adobe.xmp\0\0"
_EXIF_TEXT = b"Raw profile type exif\0"
_LARGEST_TEXT = 2**20  # bytes, decompressed, that Pillow reads

_MOST_CHUNKS = 100_000  # encoders write chunks of some kilobytes

# APP2 to APP13, APP15 and comments. APP0 and APP14 give the colour space.
_SPARE = frozenset((*range(0xE2, 0xEE), 0xEF, 0xFE))
_APP1, _SCAN = 0xE1, 0xDA
_ORIENTED = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")  # APP1 segments; one of each is enough
_MOST_SEGMENTS = 100_000  # of up to 64 KB: files hold some hundreds
_MOST_NEEDED = 1_000  # of those that decoders read: files hold a dozen

# Between segments, decoders skip all but these: fill, restarts, escaped bytes. Pillow does so one
# byte at a time, which of 20 MB takes a minute.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_LEAST_WITH_LENGTH, _START, _END = 0xC0, 0xD8, 0xD9


def without(data: bytes) -> bytes:
    """The file without metadata that its pixels do not need; itself where there is none to drop.

    Raises TooManyPixels for a file of too many segments or chunks.
    """
    if data.startswith(_PNG):
        return _cut(data, _spare_chunks(data))
    if data.startswith(_JPEG):
        return _cut(data, _spare_segments(data))
    return data


def _cut(data: bytes, spans: Iterator[tuple[int, int]]) -> bytes:
    """`data` without the bytes of `spans` (start, end), which come in order; some may be empty."""
    kept, position = [], 0
    for start, end in spans:
        if start > position:
            kept.append(data[position:start])
        position = end
    return b"".join([*kept, data[position:]]) if position else data


def _spare_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Where a PNG's texts, profiles and the like lie. A chunk: length, kind, content, checksum."""
    start, exif = len(_PNG), False
    for _ in range(_MOST_CHUNKS):
        kind = data[start + 4 : start + 8]
        if kind in (b"", b"IEND"):
            return
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            return
        needed = kind in _NEEDED or (kind == b"iTXt" and data.startswith(_XMP_TEXT, start + 8))
        if not exif and kind in (b"tEXt", b"zTXt") and data.startswith(_EXIF_TEXT, start + 8):
            exif = True  # one is enough
            if kind == b"tEXt":
                needed = end - start <= _LARGEST_TEXT
            else:
                needed = _is_little(data[start + 8 + len(_EXIF_TEXT) : end - 4])
        if kind[:1].islower() and not needed:
            yield start, end
        start = end
    raise TooManyPixels(f"the PNG has more than {_MOST_CHUNKS:,} chunks")


def _is_little(packed: bytes) -> bool:
    """Whether a compressed text is small enough for Pillow; no more than that is decompressed.

    `packed`: a byte for the method, which is 0, then zlib's data.
    """
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed[1:], _LARGEST_TEXT)
    except zlib.error:
        return False
    return unpacking.eof and packed[0] == 0


def _spare_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Where a JPEG's comments, profiles and the like lie before its first scan."""
    position, wanted, needed = 2, set(_ORIENTED), 0
    for _ in range(_MOST_SEGMENTS):
        match = MARKER.search(data, position)
        if match is None:
            yield position + 1, len(data)
            return
        start, content, marker = match.start(), match.end(), match[1][0]
        if start > position:
            yield position, start
        if marker in (_START, _END):  # no decoder takes an image that begins twice, or ends here
            yield content, len(data)
            return
        position = content + int.from_bytes(data[content : content + 2], "big")
        if marker == _SCAN or marker < _LEAST_WITH_LENGTH or position > len(data):
            return
        if marker in _SPARE or (marker == _APP1 and not _takes(wanted, data, start + 4)):
            yield start, position
            continue
        needed += 1
        if needed > _MOST_NEEDED:
            raise TooManyPixels(f"the JPEG has more than {_MOST_NEEDED:,} tables before its pixels")
    raise TooManyPixels(f"the JPEG has more than {_MOST_SEGMENTS:,} segments before its pixels")


def _takes(wanted: set[bytes], data: bytes, at: int) -> bool:
    """Whether an APP1 segment is one of those wanted, which it then is no longer."""
    head = next((head for head in wanted if data.startswith(head, at)), None)
    if head is not None:
        wanted.remove(head)
    return head is not None
