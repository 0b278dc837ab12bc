"""Metadata that no pixel depends on, cut out of a file before it is decoded.

To Pillow it is part of the picture: more than a megabyte of packed text or of a colour profile in a
PNG, a damaged Photoshop block or index of further pictures in a JPEG are errors, and EXIF segments
are joined in quadratic time. Here one pass over the file's structure, which unpacks nothing, leaves
out what neither pixels nor their orientation need. Where the structure breaks off or makes no
sense, the rest is left as it is: the decoder reports it.

Knows how PNG and JPEG are laid out; nothing of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

# Chunks in lower case are ancillary. These change pixels, their order, or which way is up.
_NEEDED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
_XMP_TEXT = b"XML:com.adobe.xmp\0\0"  # not packed; may say which way is up

# APP2 to APP13, APP15 and comments. APP0 and APP14 say how colours are coded.
_SPARE = frozenset((*range(0xE2, 0xEE), 0xEF, 0xFE))
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_ORIENTED = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")  # APP1 segments; one of each is enough
_NO_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD9), 0xFF))


def without(data: bytes) -> bytes:
    """The file without metadata that its pixels do not need; itself where there is none to drop."""
    if data.startswith(_PNG):
        return _cut(data, _spare_chunks(data))
    if data.startswith(_JPEG):
        return _cut(data, _spare_segments(data))
    return data


def _cut(data: bytes, spans: Iterator[tuple[int, int]]) -> bytes:
    """`data` without the bytes of `spans` (start, end), which come in order."""
    kept, position = [], 0
    for start, end in spans:
        if start > position:
            kept.append(data[position:start])
        position = end
    return b"".join([*kept, data[position:]]) if position else data


def _spare_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Where a PNG's texts, profiles and the like lie. A chunk: length, kind, content, checksum."""
    start = len(_PNG)
    while (kind := data[start + 4 : start + 8]) and kind != b"IEND":
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            return
        needed = kind in _NEEDED or (kind == b"iTXt" and data.startswith(_XMP_TEXT, start + 8))
        if kind[:1].islower() and not needed:
            yield start, end
        start = end


def _spare_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Where a JPEG's comments, profiles and the like lie before its first scan."""
    position, wanted = 2, set(_ORIENTED)
    while (start := data.find(b"\xff", position)) >= 0 and start + 3 < len(data):
        marker = data[start + 1]
        if marker in (_SCAN, _END):
            return
        if marker in _NO_LENGTH:
            position = start + 1 if marker == 0xFF else start + 2
            continue
        position = start + 2 + (data[start + 2] << 8 | data[start + 3])
        if position > len(data):
            return
        if marker in _SPARE or (marker == _APP1 and not _takes(wanted, data, start + 4)):
            yield start, position


def _takes(wanted: set[bytes], data: bytes, at: int) -> bool:
    """Whether an APP1 segment is one of those wanted, which it then is no longer."""
    head = next((head for head in wanted if data.startswith(head, at)), None)
    if head is not None:
        wanted.remove(head)
    return head is not None
