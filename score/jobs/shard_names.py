"""The names of the results of a divided job."""

from __future__ import annotations

import hashlib
from pathlib import Path


def result_name(shard: Path) -> str:
    """The name of a shard's result, without an ending: the shard's own, and a hash of its content.

    Folders are mounted elsewhere on every machine, and two of them may have a file of one name.
    Raises OSError.
    """
    with shard.open("rb") as stream:
        return f"{shard.stem}-{hashlib.file_digest(stream, 'sha256').hexdigest()[:12]}"
