"""What was probably meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 1_000  # characters of a word that is compared, which takes memory


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean …?` for the end of a message about an unknown word; empty for none alike.

    prefix: what all words begin with, left out of the comparison.
    """
    near = nearest(word, known, prefix=prefix)
    return f"; did you mean {near}?" if near else ""


def nearest(
    word: str, known: Iterable[str], *, prefix: str = "", cutoff: float = 0.6
) -> str | None:
    """The most similar known word, ignoring case; None below `cutoff`, a ratio of difflib's."""
    if len(word) > _LONGEST:
        return None
    spelled = {name.removeprefix(prefix).lower(): name for name in known}
    close = get_close_matches(word.removeprefix(prefix).lower(), spelled, n=1, cutoff=cutoff)
    return spelled[close[0]] if close else None
