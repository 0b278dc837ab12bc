"""Bodies that are no JSON: an image as it is, and forms (RFC 7578), as `curl -F` sends them.

A form is in memory already, within the limit of the body's size, and is divided here at its
boundaries; the headers of its parts are read by the standard library.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from email.message import Message as Headers
from email.parser import BytesHeaderParser
from typing import NamedTuple

from score.contract import wire
from score.contract.rows import IMAGE, TEXT, Row
from score.dialects.base import FORM, Message
from score.dialects.fields import Fields
from score.errors import BadField, BadType, RequestError, too_many_rows

_MORE_PARTS = 16  # that are no rows
_LONGEST_BOUNDARY = 70  # RFC 2046
_LONGEST_HEAD = 1024  # bytes of a part's headers, which are slow to read
_PLAIN = ("", "7bit", "8bit", "binary")


class Upload(NamedTuple):
    """The rows of an upload, and its other parts by name, decoded from JSON."""

    rows: list[Row]
    fields: Fields


class _Part(NamedTuple):
    name: str
    is_file: bool
    data: bytes


def is_upload(message: Message) -> bool:
    """Whether a body is a form or an image."""
    return message.media_type == FORM or message.media_type.startswith("image/")


def read(message: Message) -> Upload:
    """The parts `image` and `text` of a form are a row each, in their order. Raises RequestError.

    `image` is a file, or what an image cell may be. Every other part is JSON.
    """
    if message.media_type != FORM:
        return Upload([Row(image=message.body)], Fields({}))
    rows: list[Row] = []
    fields: dict[str, object] = {}
    for part in _parts(message):
        if part.name == IMAGE:
            rows.append(Row(image=part.data if part.is_file else _text(part.data)))
        elif part.name == TEXT:
            rows.append(Row(text=_text(part.data)))
        elif part.name in fields:
            raise BadField(f"the form has the part {part.name[:80]!r} twice", part.name[:80])
        else:
            fields[part.name] = _json(part)
    return Upload(rows, Fields(fields, "the form, beside 'image' and 'text'"))


def _parts(message: Message) -> Iterator[_Part]:
    delimiter = b"\r\n--" + _boundary(message.content_type)
    body = b"\r\n" + message.body
    most = message.most_rows + _MORE_PARTS
    if body.count(delimiter) > most + 1:
        raise too_many_rows(message.most_rows)
    _, *chunks = body.split(delimiter)
    if not chunks or not chunks[-1].startswith(b"--"):
        raise RequestError("the form does not end with its boundary")
    for number, chunk in enumerate(itertools.islice(chunks, len(chunks) - 1)):
        yield _part(chunk, number)


def _boundary(content_type: str) -> bytes:
    headers = Headers()
    headers["Content-Type"] = content_type
    boundary = headers.get_boundary() or ""
    if not boundary.isascii() or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise RequestError("the content type of a form needs a boundary of 1 to 70 characters")
    return boundary.encode("ascii")


def _part(chunk: bytes, number: int) -> _Part:
    """A part: the end of the boundary's line, headers, an empty line, data."""
    padding, line, rest = chunk.partition(b"\r\n")
    if padding.strip(b" \t") or not line:
        raise RequestError(f"part {number} of the form does not follow its boundary")
    head, gap, data = (b"\r\n" + rest).partition(b"\r\n\r\n")
    if not gap or len(head) > _LONGEST_HEAD:
        raise RequestError(f"part {number} of the form has no end of its headers, or long ones")
    headers = BytesHeaderParser().parsebytes(head.removeprefix(b"\r\n"))
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise RequestError(f"part {number} of the form has no name")
    encoding = str(headers.get("content-transfer-encoding", "")).strip().lower()
    if encoding not in _PLAIN:
        raise RequestError(f"part {number} of the form is encoded; send it as it is")
    filename = headers.get_param("filename", header="content-disposition")
    is_image = str(headers.get("content-type", "")).strip().lower().startswith("image/")
    return _Part(name, filename is not None or is_image, data)


def _text(data: bytes) -> object:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return BadType("is not UTF-8 text")


def _json(part: _Part) -> object:
    try:
        return wire.decode(part.data)
    except RequestError as error:
        message = str(error).replace("the body", f"the part {part.name[:80]!r}", 1)
        raise BadField(message, part.name[:80]) from None
