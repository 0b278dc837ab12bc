"""Whether a name that is not here is one that is, with letters mistaken."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LETTERS_PER_MISTAKE = 6


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """The name that was meant; None where `name` is nothing like any, or differs in a number only.

    One mistake is allowed, and one more for every six letters: `clip-cpus` is `clip-cpu`, and
    `clip-v2` is another name than `clip-v1`.
    """
    allowed = 1 + len(name) // _LETTERS_PER_MISTAKE
    ranked = sorted((_mistakes(name.lower(), one.lower()), one) for one in known)
    if not ranked or ranked[0][0] > allowed or _words(name) == _words(ranked[0][1]):
        return None
    return ranked[0][1]


def _mistakes(one: str, other: str) -> int:
    """Letters to insert, remove or exchange to make one name the other (Levenshtein's distance)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != wanted))
    return row[-1]


def _words(name: str) -> str:
    return re.sub(r"[-_.]?v?\d+", "", name.lower())
