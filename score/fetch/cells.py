"""Image cells that need no network: base64, `data:` URIs, files below a folder."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from score.errors import BadBase64, FetchFailed, TooManyBytes
from score.fetch.urls import is_web, start
from score.settings import MIB

_SHORT = 64  # characters of base64 that may have been meant as a name: fewer than any image has
_LONGEST_PATH = 1024
_PIECE = 16 * 1024  # characters that are decoded at a time
_PADDING = 3  # bytes that the padding of base64 would be
_STANDARD = bytes.maketrans(b"-_", b"+/")  # alphabet, of the url-safe one
_NO_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})")


def check_size(size: int, limit: int) -> None:
    """Raises TooManyBytes for a size above the limit."""
    if size > limit:
        raise TooManyBytes(f"more than {limit:,} bytes ({limit / MIB:.3g} MiB)")


def is_data_uri(cell: str) -> bool:
    """Whether a cell is a `data:` URI."""
    return cell[:5].lower() == "data:"


def from_data_uri(uri: str, limit: int) -> bytes:
    """RFC 2397: `data:[<mediatype>][;base64],<data>`. Raises BadBase64, TooManyBytes."""
    comma = uri.find(",")
    if comma < 0:
        raise BadBase64("a data: URI needs a comma before its data")
    header, payload = uri[:comma], uri[comma + 1 :]
    try:
        if not header.lower().replace(" ", "").endswith(";base64"):
            check_size(len(payload) - 2 * payload.count("%"), limit)  # an escape is one byte
            data = _unescaped(payload)
            check_size(len(data), limit)
            return bytes(data)
        if "%" in payload:
            payload = _unescaped(payload).decode(errors="replace")
    except UnicodeEncodeError:
        raise BadBase64("a data: URI that holds half a character is not Unicode") from None
    return from_base64(payload, limit)


def from_base64(text: str, limit: int) -> bytes:
    """Standard or url-safe alphabet, line breaks and missing padding allowed (RFC 4648).

    Raises BadBase64, TooManyBytes.
    """
    try:
        compact = _compact(text, limit)
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except ValueError:  # letters of no alphabet, or that are not ASCII; a wrong length
        raise BadBase64(f"neither an http(s) URL, a data: URI nor base64: {start(text)}") from None


def _compact(text: str, limit: int) -> bytes:
    """Base64 in the standard alphabet, without white space and padding, a piece at a time.

    Raises UnicodeEncodeError; TooManyBytes as soon as the data are larger than `limit`.
    """
    compact = bytearray()
    for begin in range(0, len(text), _PIECE):
        compact += "".join(text[begin : begin + _PIECE].split()).encode("ascii")
        check_size(len(compact) * 3 // 4 - _PADDING, limit)
    letters = compact.translate(_STANDARD).rstrip(b"=")
    check_size(len(letters) * 3 // 4, limit)
    return bytes(letters)


def _unescaped(text: str) -> bytearray:
    """Text as UTF-8, its percent-escapes resolved, as `urllib.parse.unquote_to_bytes` does.

    That makes an object of each escape, which takes 30 times the memory and far more time.
    Quoted-printable differs by its sign alone, and is decoded without. Raises UnicodeEncodeError.
    """
    data, begin = bytearray(), 0
    while begin < len(text):
        end = begin + _PIECE
        escape = text.rfind("%", end - 2, end)  # which the end of the piece would divide
        end = escape if escape >= 0 and end < len(text) else end
        piece = text[begin:end].encode().replace(b"=", b"=3D")
        data += binascii.a2b_qp(_NO_ESCAPE.sub(b"=25", piece).replace(b"%", b"="))
        begin = end
    return data


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


def is_short_base64(cell: object, root: Path) -> bool:
    """Whether a cell that was read as base64 may have been meant as a path below `root`."""
    if not isinstance(cell, str) or len(cell) > _SHORT or is_web(cell.strip()):
        return False
    cell = cell.strip()
    return not is_data_uri(cell) and file_below(root.resolve(), cell) is None


def looks_like_a_path(cell: str) -> bool:
    """Whether a cell that is not base64 was probably meant as a file's path."""
    return len(cell) <= _LONGEST_PATH and bool(set(cell) & set("./\\"))


def looks_like_a_file_name(cell: str) -> bool:
    """Whether a cell is a path and nothing else: base64 has neither a dot nor a backslash."""
    no_path = is_data_uri(cell) or "://" in cell
    return not no_path and len(cell) <= _LONGEST_PATH and bool(set(cell) & set(".\\"))
