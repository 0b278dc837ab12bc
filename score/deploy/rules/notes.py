"""Findings of a check that are no errors."""

from __future__ import annotations


class Note(str):
    """A sentence about what only a workspace knows, or what works but may surprise."""

    __slots__ = ()
