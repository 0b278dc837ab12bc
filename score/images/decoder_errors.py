"""Errors of Pillow and its codecs → a row's error.

A file can be truncated, damaged, or valid but of an unsupported kind; Pillow's exceptions tell
these apart only in their text. No message here claims more than that text does.

Knows exceptions; nothing of images.
"""

from __future__ import annotations

import re
import struct

from score.errors import NotAnImage, RowError, TruncatedImage

ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    AttributeError,
    RuntimeError,
    Warning,  # where the process turns warnings into errors
)
"""What Pillow's decoders raise on files that they cannot read, beside memory and bomb errors."""

# Errors whose text Pillow or a codec wrote. Python wrote the others': "list index out of …".
_TELLING = (OSError, SyntaxError, ValueError, RuntimeError, Warning)
_ENDED = re.compile("truncat|not enough|only got|no more images|reached eof", re.IGNORECASE)
_UNSUPPORTED = re.compile("cannot handle|unsupported|unable to determine", re.IGNORECASE)
# Texts that say nothing about the file.
_VAGUE = re.compile("not identified|invalid literal|unpack|out of range|' object")
_LONGEST = 120  # characters


def row_error(name: str, error: Exception) -> RowError:
    """One of `ERRORS`, met while reading an image of format `name`, as a row's error."""
    text = str(error).strip().partition("\n")[0][:_LONGEST]
    if isinstance(error.__cause__, KeyError):  # the reader looked up how to decode it
        return NotAnImage(f"this kind of {name} cannot be read: {_kind(error.__cause__.args[0])}")
    if _UNSUPPORTED.match(text):
        return NotAnImage(f"this kind of {name} cannot be read: {text}")
    if isinstance(error, EOFError) or _ENDED.search(text):
        return TruncatedImage(f"the {name}'s data end before the image does")
    if text == "cannot load this image":
        return TruncatedImage(f"the {name} holds no pixels")
    if isinstance(error, _TELLING) and text and not _VAGUE.search(text):
        return TruncatedImage(f"the {name} cannot be decoded: {text}")
    return TruncatedImage(f"the {name}'s header is damaged")


def _kind(key: object) -> str:
    """What Pillow looked up in vain: a TIFF's compression, or its kind of pixels."""
    if isinstance(key, tuple) and len(key) == 6:
        _, photometric, sample, _, bits, _ = key
        return f"bits {bits}, sample format {sample}, photometric interpretation {photometric}"
    return f"compression {key}"
