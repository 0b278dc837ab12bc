"""The size and number of the frames that an AVIF's AV1 data hold, whatever its header says.

The header may state 10×10 pixels while the data hold frames of 16,384×16,384, which are decoded
before anything compares the two, and many frames where only one is shown.

Knows AVIF's boxes and the beginning of AV1's units; nothing of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

from score.errors import TooManyPixels
from score.images.boxes import boxes, inside

_SEQUENCE, _FRAMES = 1, (3, 6)  # kinds of AV1's units
_BLOCK = 64  # pixels: encoders may round the sides up to whole blocks
_MOST_TIMES = 8  # `max_pixels`, for all frames: colour, transparency, thumbnail, layers
_MOST_PIECES = 10_000  # of an AVIF's items
_MOST_UNITS = 10_000  # of an item: files hold three
_LONGEST_SEQUENCE = 512  # bytes that matter of a sequence header


def check_frames(data: bytes, max_pixels: int) -> None:
    """Bounds the pixels of all frames that may be decoded. Raises TooManyPixels."""
    total = 0
    for stream in _streams(data):
        frames, largest = 0, 0
        for kind, content in _units(stream):
            frames += kind in _FRAMES
            if kind == _SEQUENCE:
                width, height = _size(content)
                if width * height > max_pixels + _BLOCK * (width + height):
                    raise TooManyPixels(
                        f"its frames of {width}×{height} are more than {max_pixels:,} pixels"
                    )
                largest = max(largest, width * height)
        total += frames * largest
        if total > _MOST_TIMES * max_pixels:
            raise TooManyPixels(
                f"the AVIF's frames are more than {_MOST_TIMES} × {max_pixels:,} pixels together"
            )


class _Bytes:
    """Integers read one after another from an offset; zeros behind the end."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def take(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self._data[self.at - size : self.at], "big")


class _Bits:
    """The same in bits."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, size: int) -> int:
        self._left -= size
        return (self._bits >> self._left) & ((1 << size) - 1) if self._left >= 0 else 0


def _streams(data: bytes) -> Iterator[bytes]:
    """The AV1 data of each still image, and of the first frame of each film."""
    coded, unread = _coded(data), 2 * len(data)
    for item, pieces in _items(data):
        unread -= sum(len(piece) for piece in pieces)
        if unread < 0:
            raise TooManyPixels("the AVIF's items are larger together than the file")
        if item in coded:
            yield b"".join(pieces)
    for table in inside(data, b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        tables = {box.kind: box.start + 4 for box in boxes(data, table.start, table.end)}
        sizes = _Bytes(data, tables.get(b"stsz", len(data)))
        size = sizes.take(4) or sizes.take(8) & 0xFFFFFFFF  # one for all, or the first of a list
        wide = 8 if b"co64" in tables else 4
        offsets = _Bytes(data, tables.get(b"co64", tables.get(b"stco", len(data))) + 4)
        start = offsets.take(wide)
        yield data[start : start + size]


def _coded(data: bytes) -> set[int]:
    """The ids of the items that AV1 encodes."""
    found = set()
    for infos in inside(data, b"meta", b"iinf"):
        head = 6 if data.startswith(b"\0", infos.start) else 8
        for info in boxes(data, infos.start + head, infos.end):
            fields = _Bytes(data, info.start)
            version = fields.take(1)
            fields.take(3)
            item = fields.take(2 if version < 3 else 4)
            fields.take(2)
            if data.startswith(b"av01", fields.at):
                found.add(item)
    return found


def _items(data: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """(id, pieces of its data) of each item. Raises TooManyPixels for too many."""
    left = _MOST_PIECES
    bodies = next((box.start for box in inside(data, b"meta", b"idat")), 0)
    for table in inside(data, b"meta", b"iloc"):
        fields = _Bytes(data, table.start)
        version, _, sizes, more = fields.take(1), fields.take(3), fields.take(1), fields.take(1)
        for _ in range(fields.take(2 if version < 2 else 4)):
            item = fields.take(2 if version < 2 else 4)
            in_body = version and fields.take(2) & 15 == 1
            fields.take(2)
            base = fields.take(more >> 4) + (bodies if in_body else 0)
            pieces = []
            for _ in range(fields.take(2)):
                fields.take(more & 15 if version else 0)
                start = base + fields.take(sizes >> 4)
                pieces.append(data[start : start + fields.take(sizes & 15)])
            left -= 1 + len(pieces)
            if left < 0:
                raise TooManyPixels(f"the AVIF's items have more than {_MOST_PIECES:,} pieces")
            yield item, pieces


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of each of AV1's units. Raises TooManyPixels for too many."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at >= len(stream):
            return
        head = stream[at]
        at += 2 if head & 4 else 1
        size = len(stream) - at
        if head & 2:
            size, at = _length(stream, at)
        kind = head >> 3 & 15
        yield kind, stream[at : at + (_LONGEST_SEQUENCE if kind == _SEQUENCE else 0)]
        at += size
    raise TooManyPixels(f"the AVIF has a frame of more than {_MOST_UNITS:,} units")


def _length(stream: bytes, at: int) -> tuple[int, int]:
    """(an integer of seven bits a byte, the lowest first, the offset behind it)."""
    value = 0
    for place in range(8):
        byte = stream[at + place] if at + place < len(stream) else 0
        value |= (byte & 127) << 7 * place
        if not byte & 128:
            break
    return value, at + place + 1


def _size(sequence: bytes) -> tuple[int, int]:
    """(width, height) of the largest frame that a sequence header allows (AV1, 5.5)."""
    bits = _Bits(sequence)
    bits.take(4)
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        delay = _timing(bits)
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):  # operating points
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay and bits.take(1):
                bits.take(2 * delay + 1)
            if delays and bits.take(1):
                bits.take(4)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(across) + 1, bits.take(down) + 1


def _timing(bits: _Bits) -> int:
    """Skips the timing; the bits of a decoder model's delays, 0 without one."""
    if not bits.take(1):
        return 0
    bits.take(64)
    if bits.take(1):
        zeros = 0
        while zeros < 32 and not bits.take(1):
            zeros += 1
        bits.take(zeros)
    if not bits.take(1):
        return 0
    delay = bits.take(5) + 1
    bits.take(42)
    return delay
