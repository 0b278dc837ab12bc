"""Bounds on the parts of a file that Pillow reads one by one in Python before it knows the size.

Blocks, comments and boxes of a byte each cost a million times what they hold: a megabyte of them
keeps a thread, and with it Python's lock, for seconds. PNG's and JPEG's are cut out (`metadata`).

Knows how files are laid out; nothing of pixels.
"""

from __future__ import annotations

import re

from score.errors import TooManyPixels
from score.images import jpeg2000
from score.images.formats import signed
from score.images.tiff import Tags

_MOST_BLOCKS = 100_000  # of a GIF, each of up to 255 bytes
_LONGEST_HEADER = 2**16  # bytes of a PPM, comments included
_MOST_COMMENTS = 10_000  # in a PPM of text: Pillow copies up to a megabyte for each

_EXTENSION, _COMMENT, _IMAGE, _TRAILER = 0x21, 0xFE, 0x2C, 0x3B
_PLAIN, _BITMAPS = (b"P1", b"P2", b"P3"), (b"P1", b"P4")
_PPM = re.compile(rb"P[0-6fFy]")
_PPM_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")


def check(data: bytes) -> None:
    """Raises TooManyPixels for a file of too many parts."""
    name = signed(data)
    if name == "GIF":
        _check_gif(data)
    elif name == "JPEG2000":
        jpeg2000.check_boxes(data)
    elif data[:2] in (b"II", b"MM"):
        Tags(data).check()
    elif _PPM.match(data):
        _check_ppm(data)


def _check_gif(data: bytes) -> None:
    """Bounds the blocks before a GIF's first image; what follows it is not read."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10:11] and data[10] & 128 else 0)
    inside = False  # an extension: a label, and blocks up to an empty one
    for _ in range(_MOST_BLOCKS):
        if at >= len(data) or (not inside and data[at] in (_IMAGE, _TRAILER)):
            return
        if inside:
            inside, at = data[at] != 0, at + 1 + data[at]
        elif data[at] == _EXTENSION:
            # But for comments, Pillow does not take an empty first block for the last.
            skips = data[at + 1 : at + 2] != bytes([_COMMENT]) and data[at + 2 : at + 3] == b"\0"
            inside, at = True, at + (3 if skips else 2)
        else:
            at += 1
    raise TooManyPixels(f"the GIF has more than {_MOST_BLOCKS:,} blocks before its first image")


def _check_ppm(data: bytes) -> None:
    """Bounds a PPM's header and, where its pixels are text, the comments among them."""
    numbers = 3 if data[:2] in _BITMAPS else 4  # with the kind of file
    head = _PPM_COMMENT.sub(b"", data[:_LONGEST_HEADER])
    words = len(head.split(None, numbers)) + head[-1:].isspace()
    if len(data) > _LONGEST_HEADER and words <= numbers:
        raise TooManyPixels(f"the PPM's header is longer than {_LONGEST_HEADER:,} bytes")
    if data[:2] in _PLAIN and data.count(b"#") > _MOST_COMMENTS:
        raise TooManyPixels(f"the PPM has more than {_MOST_COMMENTS:,} comments")
