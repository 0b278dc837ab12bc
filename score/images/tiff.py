"""How much work the tags of a TIFF ask for, known before a decoder reads them.

A tag is a few bytes that may stand for millions of strips, for a tile of a gigabyte, or for the
same megabytes again and again. EXIF has the same layout, and its tags are bounded in the same way.

Knows TIFF's directories; nothing of pixels. Tags that no reader could read are not counted.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from score.errors import TooManyPixels
from score.images.tiling import parts_of

_MOST_TAGS = 65_535  # of one directory: what a TIFF that is no BigTIFF can hold
_MOST_NUMBERS = 1_000_000  # of a file's tags, apart from bytes: each becomes a Python object
_MOST_FRACTIONS = 10_000  # each becomes a large one
_MOST_STRIPS = 100_000  # or tiles, each of which is decoded by itself

_WIDTH, _LENGTH, _PLANES = 256, 257, 284
_COMPRESSION, _BIT_ORDER, _SAMPLES = 259, 266, 277
_STRIP_ROWS, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323
_OFFSETS, _SIZES = (273, 324), (279, 325)
_SUBDIRECTORIES = (34665, 34853, 40965)  # EXIF, GPS and interoperability, which Pillow reads whole
_OLD_JPEG, _JPEG, _REVERSED, _SEPARATE = 6, 7, 2, 2

# Kinds of values: struct's letter of those that are one integer, and how many bytes a value takes.
_INTEGERS = dict(
    zip((1, 3, 4, 6, 8, 9, 13, 16, 17, 18), "BHIbhiIQqQ", strict=True)  # the last three: 64 bits
)
_BYTES = {2: 1, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8}
_BYTES |= {kind: struct.calcsize("=" + letter) for kind, letter in _INTEGERS.items()}
_FRACTIONS, _PLAIN = (5, 10), (1, 2, 6, 7)


class Tag(NamedTuple):
    """A tag: its number, the kind and number of its values, and where in the file they lie."""

    number: int
    kind: int
    values: int
    start: int

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return self.values * _BYTES[self.kind]


class Tags:
    """The tags of a TIFF's first directory, or of EXIF. Raises TooManyPixels for too many."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = ">" if data[:2] == b"MM" else "<"
        # Whether it is a BigTIFF. Pillow takes a big-endian one for a plain TIFF, libtiff does not.
        self._layouts = {b"+\0": [True], b"\0+": [True, False]}.get(data[2:4], [False])
        self._tags = [
            tag
            for big in self._layouts
            if (start := self._number("Q" if big else "I", 8 if big else 4)) is not None
            for tag in self._directory(start, big)
        ]

    def check(self) -> None:
        """Bounds the tags, strips and tiles. Raises TooManyPixels."""
        self._check_tags()
        strips = max(self.strips()[0], *(self._count(number) for number in (*_OFFSETS, *_SIZES)))
        if strips > _MOST_STRIPS:
            raise TooManyPixels(
                f"the TIFF has {strips:,} strips or tiles, more than {_MOST_STRIPS:,}"
            )
        # Decoders turn round the bits of each strip's whole data, however few rows it has.
        if _REVERSED in self._first(_BIT_ORDER) and self._packed() > 2 * len(self._data):
            raise TooManyPixels("the TIFF's strips are larger together than the file")

    def jpeg_strips(self) -> list[slice]:
        """Where the JPEGs lie that the TIFF is made of, each once; none if it is compressed
        otherwise. The whole file, where the tags leave open which places are read."""
        kinds = {_OLD_JPEG, _JPEG}.intersection(self._first(_COMPRESSION))
        if not kinds:
            return []
        offsets, sizes = (
            [tag for tag in self._tags if tag.number in numbers] for numbers in (_OFFSETS, _SIZES)
        )
        if _OLD_JPEG in kinds or len(offsets) != 1 or len(sizes) != 1:
            return [slice(0, len(self._data))]
        places = {*itertools.zip_longest(self._all(*offsets), self._all(*sizes), fillvalue=0)}
        # Without a size, libtiff takes a strip to reach to the end of the file.
        return [slice(at, at + size if size else len(self._data)) for at, size in places]

    def tile(self) -> tuple[int, int]:
        """(width, length) of the tiles in pixels; 0 where there are none."""
        return max(self._first(_TILE_WIDTH)), max(self._first(_TILE_LENGTH))

    def strips(self) -> tuple[int, int, int]:
        """How many strips or tiles the size of the image asks for, and their (width, length)."""
        width, length = max(self._first(_WIDTH)), max(self._first(_LENGTH))
        across, down = min(self._first(_TILE_WIDTH)), min(self._first(_TILE_LENGTH))
        if not (across and down):
            across, down = width, min(self._first(_STRIP_ROWS)) or length
            down = min(down, length)  # 2**32 - 1 stands for all rows
        planes = max(self._first(_SAMPLES)) if _SEPARATE in self._first(_PLANES) else 1
        number = max(1, planes) * parts_of(width, across) * parts_of(length, down)
        return number, max(across, *self._first(_TILE_WIDTH)), max(down, *self._first(_TILE_LENGTH))

    def _check_tags(self) -> None:
        tags = [*self._tags]
        for pointer in _SUBDIRECTORIES:
            starts = [self._value(tag) for tag in tags if tag.number == pointer]
            for start, big in itertools.product(starts, self._layouts):
                tags += self._directory(start, big) if start is not None else ()
        if sum(tag.size for tag in tags if tag.size > 8) > 2 * len(self._data):
            raise TooManyPixels("its TIFF or EXIF tags are larger together than the file")
        tables = (*_OFFSETS, *_SIZES)  # bounded apart
        numbers = [tag for tag in tags if tag.number not in tables and tag.kind not in _PLAIN]
        fractions = [tag for tag in numbers if tag.kind in _FRACTIONS]
        for counted, most in ((fractions, _MOST_FRACTIONS), (numbers, _MOST_NUMBERS)):
            if sum(tag.values for tag in counted) > most:
                raise TooManyPixels(f"its TIFF or EXIF tags hold more than {most:,} numbers")

    def _directory(self, start: int, big: bool) -> Iterator[Tag]:
        """The directory at an offset, without tags that reach beyond the file's end."""
        letters, inline = ("HHQ", 8) if big else ("HHI", 4)
        size = struct.calcsize("=" + letters) + inline
        count = self._number("Q" if big else "H", start) or 0
        start += 8 if big else 2
        if min(count, len(self._data) // size) > _MOST_TAGS:
            raise TooManyPixels(f"it has {count:,} TIFF or EXIF tags, more than {_MOST_TAGS:,}")
        for at in range(start, min(start + count * size, len(self._data) - size + 1), size):
            number, kind, values = struct.unpack_from(self._order + letters, self._data, at)
            if kind not in _BYTES:
                continue
            value: int | None = at + size - inline
            if values * _BYTES[kind] > inline:
                value = self._number(letters[-1], at + size - inline)
            if value is not None and value + values * _BYTES[kind] <= len(self._data):
                yield Tag(number, kind, values, value)

    def _first(self, number: int) -> list[int]:
        """The integers that the tags of this number begin with, of which readers take one; or 0."""
        values = [self._value(tag) for tag in self._tags if tag.number == number]
        return [value for value in values if value is not None] or [0]

    def _value(self, tag: Tag) -> int | None:
        letter = _INTEGERS.get(tag.kind)
        return self._number(letter, tag.start) if letter and tag.values else None

    def _number(self, letter: str, at: int) -> int | None:
        """The integer at an offset; None where the file ends before it."""
        if not 0 <= at <= len(self._data) - struct.calcsize("=" + letter):
            return None
        return int(struct.unpack_from(self._order + letter, self._data, at)[0])

    def _count(self, number: int) -> int:
        return max((tag.values for tag in self._tags if tag.number == number), default=0)

    def _packed(self) -> int:
        """The sizes of all strips' data in bytes."""
        packed = 0
        for tag in self._tags:
            if tag.number in _SIZES:
                packed += sum(min(value, len(self._data)) for value in self._all(tag))
        return packed

    def _all(self, tag: Tag) -> tuple[int, ...]:
        """A tag's integers; none where it holds no integers."""
        letter = _INTEGERS.get(tag.kind)
        layout = f"{self._order}{tag.values}{letter}" if letter else ""
        return struct.unpack_from(layout, self._data, tag.start)
