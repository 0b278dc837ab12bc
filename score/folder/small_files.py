"""Small files, such as those of a checkpoint or a model folder, read up to a size.

Whoever wrote such a file chose its size. A configuration of gigabytes would be read and parsed in
full before any of its values could be refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from score.errors import ModelError

SETTINGS = 4 * 2**20
"""Bytes of a configuration: over ten times the largest published."""
TABLE = 8 * 2**20
"""Bytes of a list of tokens, tensors or probes: the largest known has two."""

_DEEPEST = 100  # lists and objects within each other; published configurations nest five


def read_bytes(file: Path, most: int = SETTINGS) -> bytes:
    """A file's content. Raises OSError, and ModelError for more than `most` bytes."""
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ModelError(f"{file} is larger than {most:,} bytes, as no file of its kind is")
    return content


def read_text(file: Path, most: int = SETTINGS) -> str:
    """A file's text, in UTF-8. Raises OSError, UnicodeDecodeError, and ModelError as above."""
    return read_bytes(file, most).decode("utf-8")


def is_deep(content: object) -> bool:
    """Whether lists and objects are nested so deeply that walking through them may fail."""
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        parts = (part.values() if isinstance(part, dict) else part for part in level)
        level = [value for part in parts for value in part if isinstance(value, (dict, list))]
        if not level:
            return False
    return True
