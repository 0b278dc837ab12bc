"""The origin of a checkpoint: its repository on the Hub, and its licence files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from score.checkpoints import hub
from score.checkpoints.catalog import CATALOG, Entry, lookup
from score.errors import ModelError

HUB = "huggingface.co/"
"""Prefix of the origin of a checkpoint from the Hub."""

_LARGEST_LICENCE = 2**20  # bytes


def licences(path: Path) -> tuple[Path, ...]:
    """The licence files of a folder or a package: no links to other folders, none too large."""
    if not path.is_dir():
        return ()
    # A download's files are links into the Hub's cache, two folders up.
    real = path.resolve()
    homes = (real, real.parents[1] / "blobs") if real.parent.name == "snapshots" else (real,)
    files = [*path.glob("LICENSE*"), *path.glob("model/LICENSE*")]
    return tuple(
        file
        for file in sorted(files)
        if file.is_file()
        and file.stat().st_size <= _LARGEST_LICENCE
        and any(file.resolve().is_relative_to(home) for home in homes)
    )


def unknown(origin: str) -> str:
    """The notice of a checkpoint that is not in the catalog."""
    return f"{origin} is not in the catalog: find out yourself what its licence allows"


class Address(NamedTuple):
    """A repository on the Hub. entry: the catalog's, if it has one."""

    id: str
    revision: str | None
    entry: Entry | None

    @property
    def notice(self) -> str:
        """Its title, authors and licence, shown before it is downloaded."""
        return self.entry.notice if self.entry else unknown(HUB + self.id)


def address(name: str, revision: str | None = None) -> Address:
    """The address of a Hub id (`owner/name`, `owner/name@revision`) or of a name of the catalog.

    The default revision is the one that the catalog pins. Raises ModelError.
    """
    named, _, asked = name.partition("@")
    entry = lookup(named)
    id = named if "/" in named else entry.hub if entry and named in CATALOG else f"keras/{named}"
    if not hub.is_id(id) or ("/" not in named and entry is None):
        raise ModelError(
            f"no checkpoint {name!r}: it is no file or folder here, no Hub id (owner/name), "
            f"and none of {', '.join(CATALOG)}"
        )
    pinned = entry.revision if entry and id.lower() == entry.hub.lower() else None
    return Address(id, asked or revision or pinned, entry)
