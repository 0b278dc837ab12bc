"""The members of a tar archive, one after the other, from any header on, in bounded memory.

Python's tarfile reads a member's extended header whole, whatever size it states, and cannot begin
inside of an archive whose members it has not seen. Nothing is ever written to where a name leads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from score.errors import RequestError
from score.wording.quoting import quoted

BLOCK = 512
_MOST_EXTENDED = 2**20  # bytes of an extended header
_MOST_HEADERS = 16  # extended headers of one member
_LONGEST_LENGTH = 20  # digits of the length of a field in one
_PIECE = 2**20
_ZEROS = bytes(BLOCK)  # of which two mark the end
_FILES = (b"0", b"\0", b"7")
_WITHOUT_CONTENT = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
}
_SPARSE = b"S"
_LONG_NAME, _LONG_LINK, _FOLDER = b"L", b"K", b"5"
_EXTENDED = (b"x", b"X")
_GLOBAL = b"g"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive that is no folder.

    begin: the place of its first header. kind: what it is instead of a file; None for a file.
    size: of its content, in bytes.
    """

    name: str
    begin: int
    size: int
    kind: str | None


class TarMembers:
    """Iterates over the members of an archive. `read` gives the current one's content.

    stream: the archive from the place `at` on, which is a header's. place: how far it has been
    read; end: where the member before the current one ends. name: of the archive, in messages.
    lacks_end: it has been read to its end, and no block of zeros marks that: it may be cut short.
    Raises RequestError for what is no archive, or is cut short; OSError.
    """

    def __init__(self, stream: IO[bytes], at: int, name: str) -> None:
        self._stream, self.place, self._name = stream, at, name
        self.end = at
        self._left = 0  # bytes of the current member's content, padding included
        self._size = 0  # without padding
        self.lacks_end = False
        self._ended = False  # whether the mark of the end was what was read last

    def __iter__(self) -> Iterator[Member]:
        while member := self._next():
            yield member
            self._skip()

    def read(self) -> bytes:
        """The content of the current member, which the caller knows not to be too large."""
        data = self._exactly(self._size)
        self._left -= self._size
        self._size = 0
        return data

    def _next(self) -> Member | None:
        self.end = begin = self.place
        fields, count = dict[str, bytes](), 0
        while True:
            header = self._header()
            if len(header) < BLOCK:
                return None
            if header == _ZEROS:
                self._ended, begin = True, self.place  # an archive may follow that was appended
                continue
            try:
                name, size, kind = self._parsed(header)
            except ValueError as error:
                if self._ended:
                    return None  # what follows the end is no archive
                raise RequestError(f"{self._name} is no readable tar: {error}") from None
            self._ended = False
            if kind == _FOLDER or (kind == b"\0" and name.endswith(b"/")):
                begin, fields, count = self.place, {}, 0
            elif kind in (_LONG_NAME, _LONG_LINK, _GLOBAL, *_EXTENDED):
                count += 1
                fields |= self._extended(kind, size, begin, count)
            else:
                if kind == _SPARSE:
                    self._skip_map(header)
                return self._member(begin, name, size, kind, fields)

    def _member(
        self, begin: int, name: bytes, size: int, kind: bytes, fields: dict[str, bytes]
    ) -> Member:
        name = fields.get("path", name)
        try:
            size = int(fields.get("size", size))
        except ValueError:
            size = -1
        if size < 0:
            raise RequestError(f"{self._name} has a member without a size at byte {begin:,}")
        said = None if kind in _FILES else _WITHOUT_CONTENT.get(kind, "no regular file")
        if kind == _SPARSE or any(field.startswith("GNU.sparse") for field in fields):
            said = "a sparse file"
        self._size = 0 if kind in _WITHOUT_CONTENT else size
        self._left = self._size + -self._size % BLOCK
        return Member(name.decode("utf-8", "surrogateescape"), begin, size, said)

    def _header(self) -> bytes:
        """A header, shorter at the end."""
        header = self._stream.read(BLOCK)
        self.place += len(header)
        if len(header) < BLOCK and self.place and not self._ended:
            if any(header):
                raise self._cut_short()
            self.lacks_end = True
        return header

    def _skip_map(self, header: bytes) -> None:
        """Skips the blocks that say which parts of a sparse file the archive holds."""
        has_more = header[482] > 0
        while has_more:
            has_more = self._exactly(BLOCK)[504] > 0

    def _parsed(self, header: bytes) -> tuple[bytes, int, bytes]:
        """A member's name, size and kind. Raises ValueError."""
        counted = header[:148] + b" " * 8 + header[156:]
        signed = sum(counted) - 256 * sum(byte > 127 for byte in counted)  # as some tools add
        try:
            is_right = _number(header[148:156]) in (sum(counted), signed)
        except ValueError:
            is_right = False
        if not is_right:
            raise ValueError(f"the header at byte {self.place - BLOCK:,} has a wrong checksum")
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
        return name, _number(header[124:136]), header[156:157]

    def _extended(self, kind: bytes, size: int, begin: int, count: int) -> dict[str, bytes]:
        """What an extended header says of the member that follows; `count` of them have come."""
        if not 0 <= size <= _MOST_EXTENDED or count > _MOST_HEADERS:
            raise RequestError(
                f"{self._name} has extended headers of more than {_MOST_EXTENDED:,} bytes, or more "
                f"than {_MOST_HEADERS} of them, for the member at byte {begin:,}"
            )
        content = self._exactly(size)
        self._left = -size % BLOCK
        self._skip()
        if kind in _EXTENDED:
            try:
                return _pax(content)
            except ValueError:
                raise RequestError(
                    f"{self._name} has a damaged extended header for the member at byte {begin:,}"
                ) from None
        return {"path": content.partition(b"\0")[0]} if kind == _LONG_NAME else {}

    def _exactly(self, size: int) -> bytes:
        content = self._stream.read(size)
        self.place += len(content)
        if len(content) < size:
            raise self._cut_short()
        return content

    def _skip(self) -> None:
        """Goes to the end of the current member."""
        while self._left:
            skipped = len(self._stream.read(min(self._left, _PIECE)))
            self.place += skipped
            self._left -= skipped
            if not skipped:
                raise self._cut_short()

    def _cut_short(self) -> RequestError:
        return RequestError(f"{self._name} is cut short: it ends inside a member")


def _number(field: bytes) -> int:
    """A number in octal, or as GNU's tar writes large ones. Raises ValueError."""
    if field[0] in (0x80, 0xFF):
        size = int.from_bytes(field[1:], "big")
        return size if field[0] == 0x80 else size - 256 ** (len(field) - 1)
    try:
        return int(field.replace(b"\0", b" ").strip() or b"0", 8)
    except ValueError:
        text = field.decode("latin-1").rstrip("\0 ")
        raise ValueError(f"{quoted(text)} is no number") from None


def _pax(content: bytes) -> dict[str, bytes]:
    """The fields of an extended header: lines of a length, a name and a value.

    Raises ValueError.
    """
    fields: dict[str, bytes] = {}
    content, at = content.rstrip(b"\0"), 0
    while at < len(content):
        space = content.find(b" ", at, at + _LONGEST_LENGTH)
        end = at + int(content[at : max(space, at)])
        name, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(content) or not equals:
            raise ValueError
        fields[name.decode("utf-8", "replace")] = value
        at = end
    return fields
