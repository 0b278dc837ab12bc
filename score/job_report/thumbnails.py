"""Small images for the report: of files that lie below the input's folder. Nothing is fetched."""

from __future__ import annotations

from pathlib import Path

from score.errors import RowError
from score.fetch.cells import file_below, from_file
from score.images import decode
from score.pages import webpage
from score.tables.shard_reader import ShardRow

_SIDE = 128  # pixels, of 3 to 8 KB each
_MOST_BYTES = 32 * 2**20
_MOST_PIXELS = 50_000_000


def thumbnail(root: Path | None, row: ShardRow, alt: str) -> str:
    """An `<img>` of a row's image; empty where that is no file below `root`, or cannot be read."""
    if root is None or not row.image:
        return ""
    file = file_below(root.resolve(), row.image.strip())
    if file is None:
        return ""
    try:
        image = decode.decode(from_file(file, _MOST_BYTES), _MOST_PIXELS)
    except (OSError, RowError):  # removed or replaced since
        return ""
    return webpage.thumbnail(image, alt, _SIDE)
