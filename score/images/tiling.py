"""Sides that are divided into strips, tiles or precincts."""

from __future__ import annotations


def parts_of(length: int, part: int) -> int:
    """How many parts cover a length; at least one, also where a file states none or less."""
    return max(1, -(-length // max(1, part)))
