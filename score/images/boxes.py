"""The boxes that JPEG 2000 and AVIF files are made of: a length, a kind of four letters, a content.

Knows bytes; nothing of what the boxes hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from score.errors import TooManyPixels

_MOST = 1_000  # in a row: files hold a dozen


class Box(NamedTuple):
    """A box's kind, and where in the file its content starts and ends."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two offsets, without those in them. Raises TooManyPixels for too many."""
    end = len(data) if end is None else end
    for _ in range(_MOST):
        length, head = int.from_bytes(data[start : start + 4], "big"), 8
        if length == 1:  # a length of 64 bits follows
            length, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = min(start + length, end) if length else end  # 0: all that is left
        if start + head > stop:
            return
        yield Box(data[start + 4 : start + 8], start + head, stop)
        start = stop
    raise TooManyPixels(f"the file has more than {_MOST:,} boxes")


def inside(data: bytes, *path: bytes) -> list[Box]:
    """The boxes at a path of kinds, such as `b"moov", b"trak"`. Raises TooManyPixels."""
    found = [Box(b"", 0, len(data))]
    for kind in path:
        found = [
            box
            for parent in found
            # This one begins with a version and flags.
            for box in boxes(data, parent.start + 4 * (parent.kind == b"meta"), parent.end)
            if box.kind == kind
        ]
    return found
