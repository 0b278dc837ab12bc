"""The names of the results of a divided job."""

from __future__ import annotations

from pathlib import Path

from score.storage.digest import sha256_of


def result_name(shard: Path) -> str:
    """The name of a shard's result, without an ending: the shard's own, and a hash of its content.

    Folders are mounted elsewhere on every machine, and two of them may have a file of one name.
    Raises OSError.
    """
    return f"{shard.stem}-{sha256_of(shard)[:12]}"
