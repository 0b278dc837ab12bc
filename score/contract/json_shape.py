"""How many values a line of JSON has, and how deep it is, before any object is made of it.

A value of three bytes, such as `[],`, becomes an object of eighty. A request's body is read by
`json_reader`, which counts as it goes; a file's lines are many and short, and Python's parser reads
them ten times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from score.errors import RequestError

DEEPEST = 100
"""Lists and objects within each other."""

_PIECE = 2**16  # bytes that are looked at in a turn; other threads run between two
_LEVELS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - set(_LEVELS))


def has_more_values(body: bytes, most: int) -> bool:
    """Whether JSON has more values than `most`. Raises RequestError for one within more than
    `DEEPEST` others.

    Each value but the first follows a comma or begins a list or an object. What is no JSON is
    looked at up to its first error at least, which the parser then finds.
    """
    values = depth = 0
    for structure in _without_strings(body):
        levels = map(_LEVELS.__getitem__, structure.translate(None, _NO_BRACKETS))
        depths = list(accumulate(levels, initial=depth))
        depth = depths[-1]
        if max(depths) > DEEPEST:
            raise RequestError("is nested too deeply")
        values += sum(map(structure.count, (b",", b"[", b"{")))
        if values > most:
            return True
    return False


def _without_strings(body: bytes) -> Iterator[bytes]:
    """What is outside the strings of a JSON body, piece by piece."""
    inside, cut = 0, b""
    for start in range(0, len(body), _PIECE):
        piece = cut + body[start : start + _PIECE]
        # An escape that the end of the piece divides belongs to the next one.
        backslashes = len(piece) - len(piece.rstrip(b"\\"))
        cut = piece[len(piece) - backslashes % 2 :]
        piece = piece.removesuffix(cut).replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')  # within strings and outside them, by turns
        yield b"".join(parts[inside::2])
        inside = (inside + len(parts) - 1) % 2
