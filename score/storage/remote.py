"""Files in object stores and on web servers, read by fsspec.

Credentials come from the environment alone.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from typing_extensions import override

from score.errors import RequestError
from score.storage.store_errors import as_os_error
from score.wording.quoting import quoted

WEB = ("http", "https")
SCHEMES = ("s3", "s3a", "az", "abfs", "abfss", "gs", "gcs", *WEB, "memory")
"""The schemes of URLs whose files can be read; `memory` is fsspec's store within the process."""

STORES = tuple(scheme for scheme in SCHEMES if scheme not in WEB)

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"://[^/@]*:[^/@]*@|\?[^/]*=")  # `user:password@`, or a query, often signed
_WEB_SECRET = re.compile(r"://[^/]*@|[?#]")
_PATTERN = re.compile(r"[*?\[]")
_LOGGERS = ("azure", "botocore", "aiobotocore", "fsspec", "gcsfs", "google", "s3fs")
_NOWHERE = logging.NullHandler()
_BUFFER = 2**20
_AHEAD = 8 * 2**20  # bytes that are downloaded beyond those asked for
_LONGEST_REQUEST, _LONGEST_SILENCE = 300.0, 30.0  # seconds, of a web server


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in an object store.

    url: without credentials. size: in bytes. version: what changes with the content, as far as the
    store tells: an ETag, or the time of the last change.
    """

    url: str
    size: int
    version: str
    _store: Any
    _path: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self._path).name

    def open(self) -> IO[bytes]:
        """The content, which can be read from any place on. Raises RequestError; OSError later."""
        try:
            with as_os_error():
                raw = self._store.open(self._path, "rb", block_size=_AHEAD)
        except OSError as error:
            raise RequestError(f"{self.url} cannot be read: {error}") from error
        return io.BufferedReader(_Stream(raw), _BUFFER)

    def read(self) -> bytes:
        """The whole content, in one request. Raises OSError."""
        with as_os_error():
            return bytes(self._store.cat_file(self._path))


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of images in an object store, as it was when it was listed.

    url: without credentials. files: the images, each with its path below the folder, in the order
    of these.
    """

    url: str
    files: Sequence[tuple[RemoteFile, PurePosixPath]]

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.url).name

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file, _ in self.files)

    @cached_property
    def version(self) -> str:
        """What changes with the names, sizes and versions of the files."""
        listing = hashlib.sha256()
        for file, path in self.files:
            listing.update(repr((str(path), file.size, file.version)).encode())
        return listing.hexdigest()


File = Path | RemoteFile
"""A file here, or in an object store."""

Input = File | RemoteFolder
"""What is read: a file, or a folder of images."""


def is_folder(source: Input) -> bool:
    """Whether an input is a folder of images."""
    return source.is_dir() if isinstance(source, Path) else isinstance(source, RemoteFolder)


def size_of(source: Input) -> int:
    """The bytes of a file, or of all files of a folder in an object store. Raises OSError."""
    return source.stat().st_size if isinstance(source, Path) else source.size


def is_remote(source: object) -> bool:
    """Whether a source is a URL and no path."""
    return isinstance(source, str) and bool(_URL.match(source))


@dataclass(frozen=True, slots=True)
class Found:
    """The files that a URL names, with their paths below a folder.

    root: the URL of that folder; for a pattern, of the part that has none of its characters.
    is_folder: whether the URL names a folder, and the files are all below it that are not hidden.
    """

    root: str
    files: Sequence[tuple[RemoteFile, PurePosixPath]]
    is_folder: bool


def files_at(url: str, is_wanted: Callable[[str], bool]) -> Found:
    """The files that a URL names: one, those below a folder, or those that a pattern fits.

    is_wanted: whether a file below a folder counts, by its name. Raises RequestError for what
    cannot be read, FileNotFoundError.
    """
    scheme = _checked_scheme(url)
    try:
        with as_os_error():
            store, path = _store(scheme, url)
            root, found, is_folder = _found(store, path, is_wanted)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: {error}") from None
    except OSError as error:
        raise RequestError(f"{url} cannot be read: {error}") from None
    files = []
    for name, info in found.items():
        if info["type"] == "file":
            inner = PurePosixPath(name[len(root) :].lstrip("/"))
            size = _size(info, url)
            file = RemoteFile(_shown(scheme, name), size, _version(info), store, name)
            files.append((file, inner))
    if not files:
        raise FileNotFoundError(f"no table and no image at {url}")
    if scheme in WEB:
        _check_parts(files[0][0])
    return Found(_shown(scheme, root), sorted(files, key=lambda item: item[1].parts), is_folder)


def read_file(url: str, most: int) -> bytes:
    """A file's content. Raises RequestError, also for more than `most` bytes; FileNotFoundError."""
    (file, _), *others = files_at(url, lambda _: True).files
    if others or file.size > most:
        raise RequestError(f"{url} is no file of up to {most:,} bytes")
    try:
        return file.read()
    except OSError as error:
        raise RequestError(f"{url} cannot be read: {error}") from None


def upload(folder: Path, url: str, last: str) -> None:
    """Copies a folder to a place in an object store; the file `last` when all others are there.

    Raises RequestError where there is something already, or that cannot be written.
    """
    scheme = _checked_scheme(url)
    if scheme in WEB:
        raise RequestError(f"{url} is on a web server, where nothing is written")
    files = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
    try:
        with as_os_error():
            store, path = _store(scheme, url)
            store.invalidate_cache()
            if store.exists(path):
                raise RequestError(f"{url} is there already: name another place, or remove it")
            for file in sorted(files, key=lambda file: file == Path(last)):
                store.put_file(str(folder / file), f"{path}/{file.as_posix()}")
    except OSError as error:
        raise RequestError(f"{url} cannot be written: {error}") from None


def _found(
    store: Any, path: str, is_wanted: Callable[[str], bool]
) -> tuple[str, dict[str, dict[str, Any]], bool]:
    """The folder that the files are below, what the store says of each, and whether the path is
    that folder."""
    store.invalidate_cache()
    pattern = _PATTERN.search(path)
    try:
        info = store.info(path)
    except FileNotFoundError:
        if not pattern:
            raise
    else:
        if info["type"] == "file":
            return path.rpartition("/")[0], {path: info}, False
    if pattern:
        root, found = path[: pattern.start()].rpartition("/")[0], store.glob(path, detail=True)
    else:
        root, found = path, store.find(path, detail=True)
        found = {name: info for name, info in found.items() if is_wanted(name)}
    shown = {name: info for name, info in found.items() if _is_shown(name, root)}
    return root, shown, not pattern


def _checked_scheme(url: str) -> str:
    match = _URL.match(url)
    scheme = match[1].lower() if match else ""
    if scheme not in SCHEMES:
        raise RequestError(
            f"an input cannot be read from {quoted(f'{scheme}://')}; {', '.join(SCHEMES)} can"
        )
    if (_WEB_SECRET if scheme in WEB else _SECRET).search(url):
        raise RequestError(
            f"a {scheme}:// URL of an input holds a user, a password or a query, which may be "
            "secret: give credentials by the environment, as docs/embed.md describes"
        )
    if scheme in WEB and _PATTERN.search(url.split("/", 3)[-1]):
        raise RequestError(f"a web server lists no files: name each {scheme}:// URL in full")
    return scheme


def _store(scheme: str, url: str) -> tuple[Any, str]:
    """A URL's store and path. Raises ImportError for a library that is missing."""
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        import s3fs  # noqa: F401
    elif scheme in ("az", "abfs", "abfss"):
        import adlfs  # noqa: F401
    elif scheme in ("gs", "gcs"):
        import gcsfs  # noqa: F401
    elif scheme in WEB:
        import aiohttp

        times = aiohttp.ClientTimeout(
            total=_LONGEST_REQUEST, sock_connect=_LONGEST_SILENCE, sock_read=_LONGEST_SILENCE
        )
        options = {"client_kwargs": {"timeout": times}}
    for name in _LOGGERS:  # they would print what goes wrong on the way, also if nobody asked
        logging.getLogger(name).addHandler(_NOWHERE)
    try:
        store, path = fsspec.core.url_to_fs(url, **options)
    except ValueError:  # such as a connection string that is none
        raise RequestError(
            f"{url} cannot be read: the environment does not say how to sign in, or says it wrongly"
        ) from None
    return store, str(path) if scheme in WEB else str(path).rstrip("/")


def _check_parts(file: RemoteFile) -> None:
    """Raises RequestError for a web server that sends whole files only."""
    try:
        with file.open() as stream:
            stream.seek(max(0, file.size - 1))
            stream.read(1)
    except OSError as error:
        raise RequestError(
            f"{file.url} cannot be read: its server does not send parts of files (HTTP range "
            "requests), by which a job goes on: download it first"
        ) from error


def _is_shown(name: str, root: str) -> bool:
    """Whether no part of a path below `root` is hidden."""
    parts = PurePosixPath(name[len(root) :].lstrip("/")).parts
    return not any(part.startswith(".") for part in parts)


def _shown(scheme: str, path: str) -> str:
    return path if scheme in WEB else f"{scheme}://{path.lstrip('/')}"


def _size(info: dict[str, Any], url: str) -> int:
    if info["size"] is None:
        raise RequestError(f"{url} cannot be read: its server does not tell how long it is")
    return int(info["size"])


def _version(info: dict[str, Any]) -> str:
    names = ("ETag", "etag", "LastModified", "last_modified", "Last-Modified", "created")
    return str(next(filter(None, map(info.get, names)), ""))


class _Stream(io.RawIOBase):
    """A store's file, which raises only OSError."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        with as_os_error():
            data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with as_os_error():
            return int(self._raw.seek(offset, whence))

    @override
    def tell(self) -> int:
        return int(self._raw.tell())

    @override
    def close(self) -> None:
        if not self.closed:
            with as_os_error():
                self._raw.close()
        super().close()
