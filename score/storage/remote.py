"""Files in object stores, read by fsspec. Credentials come from the environment alone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from typing_extensions import override

from score.errors import RequestError
from score.wording.quoting import quoted

SCHEMES = ("s3", "s3a", "az", "abfs", "abfss", "gs", "gcs", "memory")
"""The schemes of URLs whose files can be read; `memory` is fsspec's store within the process."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"://[^/@]*:[^/@]*@|\?[^/]*=")  # `user:password@`, or a query, often signed
_PATTERN = re.compile(r"[*?\[]")
_BUFFER = 2**20
_AHEAD = 8 * 2**20  # bytes that are downloaded beyond those asked for


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
            with _as_os_error():
                raw = self._store.open(self._path, "rb", block_size=_AHEAD)
        except OSError as error:
            raise RequestError(f"{self.url} cannot be read: {error}") from None
        return io.BufferedReader(_Stream(raw), _BUFFER)


File = Path | RemoteFile
"""A file that is an input: here, or in an object store."""


def is_remote(source: object) -> bool:
    """Whether a source is a URL and no path."""
    return isinstance(source, str) and bool(_URL.match(source))


def files_at(
    url: str, is_table: Callable[[str], bool]
) -> tuple[str, list[tuple[RemoteFile, PurePosixPath]]]:
    """The files that a URL names: one, those below a folder, or those that a pattern fits.

    is_table: whether a file below a folder counts, by its name. The second value are the files with
    their paths below the folder, or below the part of a pattern that has none of its characters;
    the first is that folder's URL. Raises RequestError for what cannot be read,
    FileNotFoundError.
    """
    scheme = _checked_scheme(url)
    try:
        with _as_os_error():
            store, path = _store(scheme, url)
            root, found = _found(store, path, is_table)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: {error}") from None
    except OSError as error:
        raise RequestError(f"{url} cannot be read: {error}") from None
    files = []
    for name, info in sorted(found.items()):
        if info["type"] == "file":
            inner = PurePosixPath(name[len(root) :].lstrip("/"))
            version = str(info.get("ETag") or info.get("etag") or _changed(info))
            file = RemoteFile(_shown(scheme, name), int(info["size"]), version, store, name)
            files.append((file, inner))
    if not files:
        raise FileNotFoundError(f"no table at {url}")
    return _shown(scheme, root), files


def _found(
    store: Any, path: str, is_table: Callable[[str], bool]
) -> tuple[str, dict[str, dict[str, Any]]]:
    """The folder that the files are below, and what the store says of each."""
    store.invalidate_cache()
    if store.isfile(path):
        return path.rpartition("/")[0], {path: store.info(path)}
    if pattern := _PATTERN.search(path):
        root, found = path[: pattern.start()].rpartition("/")[0], store.glob(path, detail=True)
        return root, {name: info for name, info in found.items() if _is_shown(name, root, ".")}
    found = {name: info for name, info in store.find(path, detail=True).items() if is_table(name)}
    return path, {name: info for name, info in found.items() if _is_shown(name, path, "._")}


def _checked_scheme(url: str) -> str:
    match = _URL.match(url)
    scheme = match[1].lower() if match else ""
    if scheme not in SCHEMES:
        raise RequestError(
            f"an input cannot be read from {quoted(f'{scheme}://')}; {', '.join(SCHEMES)} can"
        )
    if _SECRET.search(url):
        raise RequestError(
            f"a {scheme}:// URL of an input holds a password or a query; give credentials by the "
            "environment, as its library describes"
        )
    return scheme


def _store(scheme: str, url: str) -> tuple[Any, str]:
    """A URL's store and path. Raises ImportError for a library that is missing."""
    import fsspec

    if scheme in ("s3", "s3a"):
        import s3fs  # noqa: F401
    elif scheme in ("az", "abfs", "abfss"):
        import adlfs  # noqa: F401
    elif scheme in ("gs", "gcs"):
        import gcsfs  # noqa: F401
    store, path = fsspec.core.url_to_fs(url)
    return store, str(path).rstrip("/")


def _is_shown(name: str, root: str, hidden: str) -> bool:
    """Whether no part of a path below `root` begins with one of some characters."""
    return not any(part[0] in hidden for part in PurePosixPath(name[len(root) :].lstrip("/")).parts)


def _shown(scheme: str, path: str) -> str:
    return f"{scheme}://{path.lstrip('/')}"


def _changed(info: dict[str, Any]) -> object:
    return info.get("LastModified") or info.get("last_modified") or info.get("created") or ""


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Makes an OSError of whatever a store's library raises.

    Their messages may hold what was signed, and headers: only the kind of the error is told.
    """
    try:
        yield
    except ImportError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError("there is no such file, container or bucket") from None
    except PermissionError:
        raise PermissionError("access is denied") from None
    except Exception as error:
        kind = type(error).__name__
        hint = "; are credentials missing?" if "Credential" in kind or "Auth" in kind else ""
        raise OSError(f"the store cannot be read ({kind}){hint}") from None


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
        with _as_os_error():
            data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _as_os_error():
            return int(self._raw.seek(offset, whence))

    @override
    def tell(self) -> int:
        return int(self._raw.tell())

    @override
    def close(self) -> None:
        if not self.closed:
            with _as_os_error():
                self._raw.close()
        super().close()
