"""A cache of what is slow to create: folders, with checksums of their files, and small facts."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable
from pathlib import Path

from score.storage import atomic
from score.type_aliases import Json
from score.validation.paths import path_of

log = logging.getLogger(__name__)

_SUMS = "sums.json"
_CHUNK = 2**20  # bytes


def location(folder: str) -> Path:
    """The folder that the setting `cache` names. Raises OSError where there is no home folder."""
    return path_of("SCORE_CACHE", folder)


def cached_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns `folder`, after `make` has filled it unless it exists and its checksums match.

    If several processes create it at the same time, the first result is used. Raises OSError, and
    whatever `make` raises.
    """
    if _is_intact(folder):
        return folder
    if folder.exists():
        log.warning("%s is damaged; creating it again", folder)
    try:
        with atomic.scratch(folder) as new:
            make(new)
            sums = {file.name: _sum(file) for file in new.iterdir()}
            (new / _SUMS).write_text(json.dumps(sums) + "\n", encoding="utf-8")
            new.chmod(0o755)  # a cache may be shared
            if folder.exists() and not _is_intact(folder):
                atomic.remove(folder)
            new.rename(folder)
    except OSError:
        if not _is_intact(folder):  # else another process has created it meanwhile
            raise
    return folder


def read_json(file: Path) -> Json | None:
    """The JSON object in a file; None for one that is missing, unreadable, damaged or no object."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(file: Path, content: Json) -> None:
    """Writes a JSON object, which others see whole or not at all. Raises OSError."""
    with atomic.file(file) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.chmod(0o644)  # a cache may be shared


def _is_intact(folder: Path) -> bool:
    """Whether the files have the checksums they were written with.

    Raises OSError for files that cannot be read at the moment, which may be intact.
    """
    try:
        sums = json.loads((folder / _SUMS).read_bytes())
        return bool(sums) and all(_sum(folder / name) == value for name, value in sums.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return False


def _sum(file: Path) -> int:
    """CRC-32, which detects corruption, not tampering; three times as fast as a digest."""
    value = 0
    with file.open("rb", buffering=0) as stream:
        while part := stream.read(_CHUNK):
            value = zlib.crc32(part, value)
    return value
