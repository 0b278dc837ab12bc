"""SentencePiece's compiled table of replacements (`precompiled_charsmap`), checked before use.

It is a trie as Darts-clone packs it, its size before it, and the replacements behind it, each ended
by a NUL. Readers do not check the trie; the one in tokenizers panics on an invalid step, once a
text leads to it, and aborts the process on an invalid size.
"""

from __future__ import annotations

import numpy as np

from score.errors import ModelError

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
