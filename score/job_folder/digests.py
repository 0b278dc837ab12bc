"""The hash of each image's bytes, taken while they pass by.

Images are fetched by several threads, in any order. So a row's cell carries the place where the
hash of its bytes belongs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from score.storage.remote import RemoteFile
from score.type_aliases import Vector


class Digest:
    """What is learnt of an image when it is fetched.

    sha256: of its bytes, in hexadecimal; None before they were fetched. is_alone: whether the row
    needs nothing else. vector: the one that is known already.
    """

    __slots__ = ("is_alone", "sha256", "vector")

    def __init__(self) -> None:
        self.sha256: str | None = None
        self.is_alone = False
        self.vector: Vector | None = None


class _Text(str):
    digest: Digest


class _Bytes(bytes):
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Remote(RemoteFile):
    digest: Digest


def carrying(cell: object, digest: Digest) -> object:
    """An image cell equal to `cell`, for `note`. One that holds no image stays as it is."""
    if isinstance(cell, str):
        text = _Text(cell)
        text.digest = digest
        return text
    if isinstance(cell, bytes):
        data = _Bytes(cell)
        data.digest = digest
        return data
    if isinstance(cell, RemoteFile):
        return _Remote(cell.url, cell.size, cell.version, cell._store, cell._path, digest)
    return cell


def note(cell: object, data: bytes) -> None:
    """Hashes what was fetched for a cell. (`Embedder.embed` calls it: `on_fetched`.)"""
    if digest := carried(cell):
        digest.sha256 = hashlib.sha256(data).hexdigest()


def carried(cell: object) -> Digest | None:
    """What a cell of `carrying` carries; None for any other cell."""
    return cell.digest if isinstance(cell, (_Text, _Bytes, _Remote)) else None
