"""SentencePiece's compiled table of replacements (`precompiled_charsmap`), checked before use.

It is a trie as Darts-clone packs it, its size before it, and the replacements behind it, each ended
by a NUL. Readers do not check the trie; the one in tokenizers panics on an invalid step, once a
text leads to it, and aborts the process on an invalid size.

tokenizers (`Precompiled`) also replaces less than SentencePiece where characters are combined: of
"e" with two accents in a row it drops the second, and a syllable of Hangul in parts stays so.
`Charsmap` replaces as SentencePiece does.
"""

from __future__ import annotations

import numpy as np

from score.errors import ModelError

BREAK = "\x01"
"""A control character. The usual tables remove it; what it divides is not combined before."""

_LARGEST = 2**22  # bytes; that of NFKC, the largest known, has 240,000


def check(charsmap: bytes) -> int:
    """The characters of the longest replacement, which a character of a text may become.

    Raises ModelError for a table with which a reader would leave its bounds.
    """
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) > _LARGEST:
        raise ModelError(f"the table of replacements (charsmap) is larger than {_LARGEST:,} bytes")
    if len(charsmap) <= 4 + size or size % 4 or not size:
        raise _damaged()
    try:
        replacements = charsmap[4 + size :].decode("utf-8").split("\0")
    except UnicodeDecodeError:
        raise _damaged() from None
    _check_trie(charsmap[4 : 4 + size], charsmap[4 + size :])
    return max(map(len, replacements))


def _check_trie(trie: bytes, replacements: bytes) -> None:
    units = np.frombuffer(trie, dtype="<u4").astype(np.int64)
    texts = np.frombuffer(replacements, dtype=np.uint8)
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    next = np.arange(len(units)) ^ offsets
    inner = units < 1 << 31  # the others are values, which nothing steps on; the root is stepped on
    inner[0] = True
    if (next[inner] | 255).max() >= len(units):  # any byte of a text may be the next step
        raise _damaged()
    values = units[next[inner & (units >> 8 & 1 == 1)]] & (1 << 31) - 1
    begins = np.append(texts & 0xC0 != 0x80, True)  # not amid a character
    if (values > len(texts)).any() or not begins[values].all():
        raise _damaged()


def _damaged() -> ModelError:
    return ModelError("the table of replacements (charsmap) is damaged or cut short")


class Charsmap:
    """A table that `check` has passed, applied as SentencePiece does: at each position the longest
    sequence of characters that it has is replaced."""

    def __init__(self, charsmap: bytes) -> None:
        size = int.from_bytes(charsmap[:4], "little")
        self._units = np.frombuffer(charsmap[4 : 4 + size], dtype="<u4").tolist()
        self._texts = charsmap[4 + size :]

    def __call__(self, text: str) -> str:
        """The text with its replacements. Raises UnicodeEncodeError for a lone surrogate."""
        data, parts, at = text.encode(), bytearray(), 0
        while at < len(data):
            length, value = self._longest(data, at)
            if length:
                parts += self._texts[value : self._texts.index(0, value)]
            else:
                length = _length(data[at])
                parts += data[at : at + length]
            at += length
        return parts.decode()

    def _longest(self, data: bytes, at: int) -> tuple[int, int]:
        """Bytes of the longest sequence that begins at a position, 0 for none, and where its
        replacement begins."""
        units, length, value = self._units, 0, 0
        node = _offset(units[0])
        for end in range(at, len(data)):
            node ^= data[end]
            unit = units[node]
            if unit & (1 << 31 | 255) != data[end]:
                break
            node ^= _offset(unit)
            if unit >> 8 & 1:
                length, value = end + 1 - at, units[node] & (1 << 31) - 1
        return length, value


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)


def _length(first: int) -> int:
    """Bytes of a character in UTF-8 by its first."""
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
