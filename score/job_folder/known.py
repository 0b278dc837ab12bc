"""What a job has computed already: an image, a URL or a text that comes again is not fetched or
encoded again, nor is a URL that failed for good.

    URL ──urls──▶ hash of the image's bytes ──vectors──▶ vector ◀──vectors── hash of a text

Two stores on disk. `urls` is the job's alone, since what is behind a URL changes; `vectors` goes by
content, and may outlive the job (`--cache`). A cell that is under way in an earlier row is not
computed beside it either: that row comes out first, and its vector is the later one's, too.

All rows go through the embedder, so that they keep their order. Of a row, what is known is left
out; where all is known, an error stands in its place, `_Known`, which the embedder hands back when
the row's turn comes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from score.contract.params import Params
from score.contract.rows import IMAGE, TEXT, Record, Row, is_empty
from score.core.embedder import Embedder
from score.core.pairs import embed_pairs
from score.errors import ROW_CODES, RowError
from score.job_folder import digests
from score.job_folder.digests import Digest
from score.storage.blob_store import BlobStore
from score.type_aliases import Vector

T = TypeVar("T")

VECTORS_BYTES = 4 * 2**30
"""Of the vectors that are kept: two million of 512 numbers."""

_URLS_BYTES = 2**30
_WEB = ("http://", "https://")
_LONGEST = 8192  # characters of a cell that is recognised: longer ones are not kept in memory


class _Known(RowError):
    """Stands for what need not be computed."""

    code = "known"


class _Part:
    """The image or the text of a row that is under way, and what comes of it.

    key: equal for equal cells; None for a cell that is not recognised. cell: one that is, which is
    not large. earlier: the same cell in an
    earlier row, which comes out before this one. vector or error: what came of it; neither where
    the row failed by its other cell. sha256: of an image's bytes.
    """

    __slots__ = ("cell", "earlier", "error", "key", "sha256", "vector")

    def __init__(
        self, key: bytes | None = None, cell: str | None = None, earlier: _Part | None = None
    ) -> None:
        self.key, self.cell, self.earlier = key, cell, earlier
        self.vector: Vector | None = None
        self.error: RowError | None = None
        self.sha256: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing has come of it yet."""
        return self.vector is None and self.error is None

    def take(self, other: _Part) -> None:
        """Takes over what came of the same cell."""
        self.vector, self.error, self.sha256 = other.vector, other.error, other.sha256


@dataclass(slots=True)
class _Asked:
    """A row that is under way. image, text: None where it has none. computed: those of them that
    the embedder is asked for. is_new: whether these are all."""

    digest: Digest
    image: _Part | None
    text: _Part | None
    computed: list[_Part]
    is_new: bool


class Known:
    """What a job has computed already. Use it as a context manager."""

    def __init__(
        self,
        urls: Path,
        vectors: Path,
        most_bytes: int = VECTORS_BYTES,
        *,
        owns_urls: bool = False,
        owns_vectors: bool = False,
    ) -> None:
        """urls, vectors: files of the stores, made where they are missing. most_bytes: of the
        vectors that are kept. owns_…: whether nobody else uses that file."""
        self._urls = BlobStore(urls, _URLS_BYTES, is_own=owns_urls)
        self._vectors = BlobStore(vectors, most_bytes, is_own=owns_vectors)
        self._under_way: dict[bytes, _Part] = {}
        self._vector_bytes = 0
        self._limits = b""  # which decide what fails

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._urls.__exit__(kind, error, trace)
        self._vectors.__exit__(kind, error, trace)

    def save(self) -> None:
        """Has on disk what is known, so that the job knows it after a kill."""
        self._vectors.save()  # before the URLs, which lead to them
        self._urls.save()

    def embed(
        self,
        embedder: Embedder,
        items: Iterable[tuple[T, Digest, Row]],
        params: Params,
        root: Path | None,
    ) -> Generator[tuple[T, Record], None, None]:
        """As `embed_pairs`, with the place for the hash of each row's image. Not all records tell
        their numbers of tokens."""
        self._vector_bytes = embedder.dimension * np.dtype(np.float32).itemsize
        # The first of several workers chooses those for the others.
        settings = replace(embedder.settings, precision="auto", engine="auto")
        self._limits = repr(settings).encode()

        def asked() -> Iterator[tuple[tuple[T, _Asked], Row]]:
            for item, digest, row in items:
                one = self._asked(row, digest)
                yield (item, one), self._to_compute(one, row)

        rows = embed_pairs(embedder, asked(), params, root=root, on_fetched=self._fetched)
        for (item, one), record in rows:
            self._take(one, record)
            yield item, self._record(one, record, embedder, params)

    # A row's way in.

    def _asked(self, row: Row, digest: Digest) -> _Asked:
        image, text = self._image(row.image), self._text(row.text)
        parts = [part for part in (image, text) if part]
        computed = [part for part in parts if part.earlier is None and part.is_open]
        for part in computed:
            if part.key:
                self._under_way[part.key] = part
        return _Asked(digest, image, text, computed, len(computed) == len(parts))

    def _image(self, cell: object) -> _Part | None:
        """A URL is recognised; other images are by their bytes, when those are there."""
        if is_empty(cell):
            return None
        if not isinstance(cell, str) or len(cell) > _LONGEST or not cell.strip().startswith(_WEB):
            return _Part()
        part = self._part(b"url ", cell.strip())
        if part.earlier is None and part.key:
            sha256 = self._urls.get(part.key)
            if sha256 is not None and len(sha256) == hashlib.sha256().digest_size:
                part.sha256, part.vector = sha256.hex(), self._vector(_image_key(sha256.hex()))
            elif failed := self._urls.get(self._failed_key(part.key)):
                part.error, part.sha256 = _failure(failed)
        return part

    def _failed_key(self, key: bytes) -> bytes:
        """Of a URL's error: with other limits, or other hosts that are allowed, it may succeed."""
        return _hashed(b"failed " + key + self._limits)

    def _text(self, cell: object) -> _Part | None:
        if is_empty(cell):
            return None
        if not isinstance(cell, str) or len(cell) > _LONGEST:
            return _Part()
        part = self._part(b"text ", cell)
        if part.earlier is None:
            part.vector = self._vector(part.key)
        return part

    def _part(self, kind: bytes, cell: str) -> _Part:
        key = _hashed(kind + cell.encode("utf-8", "surrogatepass"))
        return _Part(key, cell, self._under_way.get(key))

    def _vector(self, key: bytes | None) -> Vector | None:
        found = self._vectors.get(key) if key else None
        if found is None or len(found) != self._vector_bytes:  # a file that somebody has changed
            return None
        return np.frombuffer(found, np.float32)

    def _to_compute(self, asked: _Asked, row: Row) -> Row:
        """The row without what is known, and with the place for its image's hash."""
        image, text, computed = asked.image, asked.text, asked.computed
        if asked.is_new and image is None:
            return row
        if not computed:
            return Row(text=_Known("is known"))
        asked.digest.is_alone = text not in computed
        return Row(
            digests.carrying(row.image, asked.digest) if image in computed else None,
            row.text if text in computed else None,
        )

    def _fetched(self, cell: object, data: bytes) -> None:
        """Hashes what was fetched. Raises _Known where its vector is there and is all that the row
        needs, so that it is not decoded."""
        digests.note(cell, data)
        digest = digests.carried(cell)
        if digest and digest.is_alone and digest.sha256:
            digest.vector = self._vector(_image_key(digest.sha256))
            if digest.vector is not None:
                raise _Known("is known")

    # A row's way out.

    def _take(self, asked: _Asked, record: Record) -> None:
        """Notes what came of the parts that were computed."""
        error = None if isinstance(record.error, _Known) else record.error
        for part in asked.computed:
            is_image = part is asked.image
            if error is None:
                image = asked.digest.vector if record.error else record.image_features
                part.vector = image if is_image else record.text_features
            elif error.column == (IMAGE if is_image else TEXT):
                part.error = error
            if is_image:
                part.sha256 = asked.digest.sha256
            if part.key and self._under_way.get(part.key) is part:
                del self._under_way[part.key]
            self._keep(part, is_image=is_image)

    def _keep(self, part: _Part, *, is_image: bool) -> None:
        if part.error and is_image and part.key and not part.error.retryable:
            told = json.dumps([part.error.code, part.error.message, part.sha256])
            self._urls.put(self._failed_key(part.key), told.encode())
        if part.vector is None:
            return
        key = _image_key(part.sha256) if is_image and part.sha256 else part.key
        if key:
            self._vectors.put(key, part.vector.tobytes())
        if is_image and part.key and part.sha256:
            self._urls.put(part.key, bytes.fromhex(part.sha256))

    def _record(self, asked: _Asked, record: Record, embedder: Embedder, params: Params) -> Record:
        """The row's record, of all its parts."""
        if asked.is_new and not isinstance(record.error, _Known):
            return record
        image, text = asked.image, asked.text
        parts = [part for part in (text, image) if part]
        for part in parts:
            if part.earlier:
                part.take(part.earlier)
        failed = any(part.error for part in parts)
        for part in parts:
            # The earlier row failed by its other cell, so that nothing came of this one.
            if part.is_open and not failed:
                self._compute(part, embedder, params, is_image=part is image)
                if part.earlier:
                    part.earlier.take(part)  # for the others that wait for it
        if image:
            asked.digest.sha256 = image.sha256
        errors = [part.error for part in parts if part.error]
        if errors:
            return Record(error=errors[0])
        return Record(
            image_features=image.vector if image else None,
            text_features=text.vector if text else None,
        )

    def _compute(self, part: _Part, embedder: Embedder, params: Params, *, is_image: bool) -> None:
        digest = Digest()
        row = Row(digests.carrying(part.cell, digest)) if is_image else Row(text=part.cell)
        (record,) = embedder.embed([row], params, on_fetched=digests.note)
        part.error, part.sha256 = record.error, digest.sha256
        part.vector = record.image_features if is_image else record.text_features
        self._keep(part, is_image=is_image)


def _failure(told: bytes) -> tuple[RowError | None, str | None]:
    """An image's error, as `Known` keeps it, and the hash of its bytes; nothing of what somebody
    has changed."""
    try:
        code, message, sha256 = json.loads(told)
        error = ROW_CODES[code](str(message), column=IMAGE, retryable=False)
    except (ValueError, TypeError, KeyError):
        return None, None
    return error, str(sha256) if sha256 else None


def _image_key(sha256: str) -> bytes:
    return _hashed(b"image " + bytes.fromhex(sha256))


def _hashed(content: bytes) -> bytes:
    """A key: short, since the stores' indexes hold all keys."""
    return hashlib.blake2b(content, digest_size=16).digest()
