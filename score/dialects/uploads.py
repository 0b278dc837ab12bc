"""Bodies that are no JSON: an image as it is, and forms (RFC 7578), as `curl -F` sends them.

A form is in memory already, within the limit of the body's size, and is divided here at its
boundaries, without copies of it; the headers of its parts are read by the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.message import Message as Headers
from email.parser import BytesHeaderParser
from typing import NamedTuple

from score.contract import wire
from score.contract.limits import too_many_rows
from score.contract.rows import IMAGE, TEXT, Row
from score.dialects.base import FORM, Message
from score.dialects.fields import Fields
from score.errors import BadField, BadType, RequestError
from score.wording.quoting import quoted

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
    data: memoryview  # of the body


def is_upload(message: Message) -> bool:
    """Whether a body is a form or an image."""
    return message.media_type == FORM or message.media_type.startswith("image/")


def read(message: Message, *others: str) -> Upload:
    """The parts `image` and `text` of a form are a row each, in their order. Raises RequestError.

    `image` is a file, or what an image cell may be. `others`: the names of the other parts that a
    form may have; `model` is a name as it is, every other one is JSON.
    """
    if message.media_type != FORM:
        return Upload([Row(image=message.body)], Fields({}))
    rows: list[Row] = []
    fields: dict[str, object] = {}
    for part in _parts(message):
        if part.name == IMAGE:
            rows.append(Row(image=bytes(part.data) if part.is_file else _text(part.data)))
        elif part.name == TEXT:
            rows.append(Row(text=_text(part.data)))
        elif part.name in fields:
            raise BadField(f"the form has the part {quoted(part.name)} twice", part.name[:80])
        elif part.name not in others and not part.is_file:
            raise BadField(_unknown(part.name, others), part.name[:80])
        else:
            fields[part.name] = _json(part, message.most_rows)
    return Upload(rows, Fields(fields, "the form, beside 'image' and 'text'"))


def _unknown(name: str, others: Sequence[str]) -> str:
    listed = ", ".join(map(repr, others))
    return (
        f"a form has no part {quoted(name)} here: 'image' and 'text' are a row each, as in "
        f"-F image=@cat.jpg or -F text='a cat'; beside them it may have {listed}"
    )


def _parts(message: Message) -> Iterator[_Part]:
    body, delimiter = message.body, b"\r\n--" + _boundary(message.content_type)
    if body.count(delimiter) > message.most_rows + _MORE_PARTS:
        raise too_many_rows(message.most_rows)
    # The first boundary needs no line before it.
    end = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)
    number = 0
    while end != -1:
        start = end + len(delimiter)
        end = body.find(delimiter, start)
        if end != -1:
            yield _part(body, start, end, number)
            number += 1
        elif body.startswith(b"--", start):
            return
    raise RequestError("the form does not end with its boundary")


def _boundary(content_type: str) -> bytes:
    headers = Headers()
    headers["Content-Type"] = content_type
    boundary = headers.get_boundary() or ""
    if not boundary.isascii() or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise RequestError("the content type of a form needs a boundary of 1 to 70 characters")
    return boundary.encode("ascii")


def _part(body: bytes, start: int, end: int, number: int) -> _Part:
    """A part: the end of the boundary's line, headers, an empty line, data."""
    most = min(end, start + _LONGEST_HEAD)
    line = body.find(b"\r\n", start, most)
    if line == -1 or body[start:line].strip(b" \t"):
        raise RequestError(f"part {number} of the form does not follow its boundary")
    gap = body.find(b"\r\n\r\n", line, most + 4)
    if gap == -1 or gap + 4 > end:
        raise RequestError(f"part {number} of the form has no end of its headers, or long ones")
    head, data = body[line + 2 : gap + 2], memoryview(body)[gap + 4 : end]
    headers = BytesHeaderParser().parsebytes(head)
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise RequestError(f"part {number} of the form has no name")
    encoding = str(headers.get("content-transfer-encoding", "")).strip().lower()
    if encoding not in _PLAIN:
        raise RequestError(f"part {number} of the form is encoded; send it as it is")
    filename = headers.get_param("filename", header="content-disposition")
    is_image = str(headers.get("content-type", "")).strip().lower().startswith("image/")
    return _Part(name, filename is not None or is_image, data)


def _text(data: memoryview) -> object:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return BadType("is not UTF-8 text")


def _json(part: _Part, most_rows: int) -> object:
    if part.is_file:
        raise BadField(
            f"the part {quoted(part.name)} is a file: name it 'image', as in -F image=@cat.jpg",
            part.name[:80],
        )
    data = bytes(part.data)
    if part.name == "model" and not data.startswith(b'"'):
        return data.decode(errors="replace")
    try:
        return wire.decode(data, most_rows)
    except RequestError as error:
        message = str(error).replace("the body", f"the part {quoted(part.name)}", 1)
        raise BadField(message, part.name[:80]) from None
