"""Rows that were found, as lines of JSON and as a table for a terminal."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from score.index.index import Hit

SCORE = "score"
_WIDEST = 40  # characters of a cell


def as_json(hit: Hit) -> str:
    """A line: `score`, the cosine, and the row's columns; one that is called `score` is
    `row.score`. Numbers that JSON lacks are null, bytes are base64, times ISO 8601."""
    row = {f"row.{name}" if name == SCORE else name: value for name, value in hit.row.items()}
    return json.dumps(plain({SCORE: round(hit.score, 4), **row}), ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value of JSON's types."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def as_table(hits: Sequence[Hit]) -> list[str]:
    """Lines of aligned columns; a long cell is cut, and what cannot be printed is escaped."""
    if not hits:
        return ["no row was found"]
    names = list(hits[0].row)
    lines = [[SCORE, *(shown(name, _WIDEST) for name in names)]]
    lines += [
        [f"{hit.score:.4f}", *(shown(hit.row[name], _WIDEST) for name in names)] for hit in hits
    ]
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells that stand below each other."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def shown(value: Any, most: int) -> str:
    """A value on one line, at most `most` characters of it."""
    if value is None:
        return ""
    start = value[: most + 1] if isinstance(value, str | bytes | list) else value
    spelled = start if isinstance(start, str) else json.dumps(plain(start), ensure_ascii=False)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in spelled[: most + 1])
    return text if len(text) <= most else f"{text[: most - 1]}…"
