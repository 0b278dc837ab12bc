"""Numbers and names as the notes of an evaluation write them."""

from __future__ import annotations

import os
from collections.abc import Sequence

_NAMED = 5  # names in a list


def plural(count: int, one: str, more: str) -> str:
    """A count with its noun in the singular or plural."""
    return f"{count:,} {one if count == 1 else more}"


def first_names(names: Sequence[str]) -> str:
    """The first names of a list, with commas."""
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def printable(name: str) -> str:
    """A file's name as valid Unicode: names need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")
