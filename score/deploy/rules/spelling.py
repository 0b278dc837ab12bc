"""Misspelt names: the known name that an unknown one probably stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LETTERS_PER_MISTAKE = 6


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `name`; None where none is near, or only a number differs.

    One mistake is allowed, and one more for every six letters: `clip-cpus` stands for `clip-cpu`,
    but `clip-v2` is a different name from `clip-v1`.
    """
    allowed = 1 + len(name) // _LETTERS_PER_MISTAKE
    ranked = sorted((_mistakes(name.lower(), one.lower()), one) for one in known)
    if not ranked or ranked[0][0] > allowed or _words(name) == _words(ranked[0][1]):
        return None
    return ranked[0][1]


def _mistakes(one: str, other: str) -> int:
    """The Levenshtein distance: letters to insert, remove or replace."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != wanted))
    return row[-1]


def _words(name: str) -> str:
    return re.sub(r"[-_.]?v?\d+", "", name.lower())
