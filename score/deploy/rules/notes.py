"""What a check tells without refusing anything."""

from __future__ import annotations


class Note(str):
    """A sentence about what only a workspace can show, or what works and may surprise."""

    __slots__ = ()
