"""Folders of files that take long to make: kept whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

log = logging.getLogger(__name__)

_SUMS = "sums.json"
_BEGUN, _ASIDE = ".making-", ".discarded-"
_FORGOTTEN = 3600  # seconds after which nobody is still at work on a folder begun
_CHUNK = 2**20


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, holding what `make` writes into an empty one; made unless it is there, unharmed.

    Of several processes that make it at once, the first one's is kept. Raises OSError, and what
    `make` raises.
    """
    if _unharmed(folder):
        return folder
    if folder.exists():
        log.warning("%s is damaged, and made anew", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    begun = Path(mkdtemp(dir=folder.parent, prefix=_BEGUN))
    try:
        make(begun)
        sums = {file.name: _sum(file) for file in begun.iterdir()}
        (begun / _SUMS).write_text(json.dumps(sums) + "\n", encoding="utf-8")
        begun.chmod(0o755)  # a cache may be shared
        if folder.exists() and not _unharmed(folder):
            discard(folder)
        begun.rename(folder)
    except OSError:
        if not _unharmed(folder):  # made by another process, meanwhile
            raise
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return folder


def discard(folder: Path) -> None:
    """Removes a folder, moved away first: another process may be making it anew."""
    aside = Path(mkdtemp(dir=folder.parent, prefix=_ASIDE))
    with contextlib.suppress(OSError):
        folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def _unharmed(folder: Path) -> bool:
    """Half a file, say, is what a disk that was full leaves behind; and disks forget bits.

    Raises OSError for what cannot be read now, which may well be unharmed.
    """
    try:
        sums = json.loads((folder / _SUMS).read_bytes())
        return bool(sums) and all(_sum(folder / name) == value for name, value in sums.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return False


def _sum(file: Path) -> int:
    """A CRC-32, three times as fast as a digest: it detects corruption, not tampering."""
    value = 0
    with file.open("rb", buffering=0) as stream:
        while part := stream.read(_CHUNK):
            value = zlib.crc32(part, value)
    return value


def _sweep(parent: Path) -> None:
    """Removes what processes that were killed had begun."""
    for folder in (*parent.glob(f"{_BEGUN}*"), *parent.glob(f"{_ASIDE}*")):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(folder, ignore_errors=True)
