"""Image cells that need no network: base64, `data:` URIs, files below a folder."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from pathlib import Path

from score.errors import BadBase64, FetchFailed, TooManyBytes
from score.fetch.urls import start
from score.settings import MIB

_LONGEST_PATH = 1024


def check_size(size: int, limit: int) -> None:
    """Raises TooManyBytes for a size above the limit."""
    if size > limit:
        raise TooManyBytes(f"more than {limit:,} bytes ({limit / MIB:.3g} MiB)")


def is_data_uri(cell: str) -> bool:
    """Whether a cell is a `data:` URI."""
    return cell[:5].lower() == "data:"


def from_data_uri(uri: str, limit: int) -> bytes:
    """RFC 2397: `data:[<mediatype>][;base64],<data>`. Raises BadBase64, TooManyBytes."""
    header, comma, payload = uri.partition(",")
    if not comma:
        raise BadBase64("a data: URI needs a comma before its data")
    if header.lower().replace(" ", "").endswith(";base64"):
        return from_base64(urllib.parse.unquote(payload) if "%" in payload else payload, limit)
    try:
        data = urllib.parse.unquote_to_bytes(payload)
    except UnicodeEncodeError:
        raise BadBase64("a data: URI that holds half a character is not Unicode") from None
    check_size(len(data), limit)
    return data


def from_base64(text: str, limit: int) -> bytes:
    """Standard or url-safe alphabet, line breaks and missing padding allowed (RFC 4648).

    Raises BadBase64, TooManyBytes.
    """
    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    check_size(len(compact) * 3 // 4, limit)
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadBase64(f"neither an http(s) URL, a data: URI nor base64: {start(text)}") from None


def from_file(file: Path, limit: int) -> bytes:
    """A file's bytes. Raises FetchFailed, TooManyBytes."""
    try:
        with file.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise FetchFailed(f"cannot read the file: {error.strerror}") from error
    check_size(len(data), limit)
    return data


def file_below(root: Path, cell: str) -> Path | None:
    """The file below `root` that a cell names; links that lead out of `root` do not count."""
    if len(cell) > _LONGEST_PATH or "\0" in cell:
        return None
    try:
        file = (root / cell).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no file name; a link to itself
        return None


def looks_like_a_path(cell: str) -> bool:
    """Whether a cell that is not base64 was probably meant as a file's path."""
    return len(cell) <= _LONGEST_PATH and bool(set(cell) & set("./\\"))


def looks_like_a_file_name(cell: str) -> bool:
    """Whether a cell is a path and nothing else: base64 has neither a dot nor a backslash."""
    no_path = is_data_uri(cell) or "://" in cell
    return not no_path and len(cell) <= _LONGEST_PATH and bool(set(cell) & set(".\\"))
