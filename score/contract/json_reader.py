"""JSON of a client → Python's values, in memory and time in proportion to its bytes.

Not by `json.loads`, for three reasons. It wants the body as a string, of which one emoji makes four
bytes a character, and makes every string of it once more. It makes objects of all values before any
can be counted: three bytes may become an object of eighty. And no other thread runs meanwhile, so
that a body of a few megabytes would hold up the whole server. Here strings are decoded one by one,
long ones piece by piece; values, depth and lengths are counted before anything is made of them.

The values are those of `json.loads`, and so is what is refused, but for what has a bound here and
for keys that are repeated.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import cast

from score.contract.json_shape import DEEPEST
from score.errors import BadType, RequestError, RequestTooLarge
from score.wording.quoting import quoted

LONGEST_KEY = 4_000
"""Characters of a key: the longest label, which is one in an ontology."""

LONGEST_WIDE = 2**20
"""Characters of a text that is not ASCII: one emoji makes four bytes of each. No more of a text is
read than this, and images are ASCII."""

TOO_WIDE = (
    f"has more than {LONGEST_WIDE:,} characters, which are not all ASCII: no text is read as "
    "far, and images are ASCII"
)
"""What is wrong with a cell that is longer."""

_MOST_DIGITS = 1_000  # reading them takes time that is square in their number
_PIECE = 2**16  # bytes of a string that are read in a turn; other threads run between two
_MOST_KNOWN = 1_000  # keys that are kept, so that all rows share them

_SPACE = rb"[ \t\n\r]{0,64}+"  # more is rare, and skipped by `_skip`
_BLANKS = re.compile(rb"[ \t\n\r]{1,65536}+")
_SHORT = rb'"([^"\\\x00-\x1f]{0,256}+)"'
_DIGITS = rb"[0-9][0-9]{0,%d}+" % _MOST_DIGITS
_PLAIN = (
    _SPACE
    + b"(?:"
    + _SHORT
    + b"|(-?(?:0|[1-9][0-9]{0,%d}+))" % _MOST_DIGITS
    + rb"((?:\."
    + _DIGITS
    + b")?(?:[eE][-+]?"
    + _DIGITS
    + b")?)"
    + b"|(true|false|null|NaN|-?Infinity)"
)
_VALUE = re.compile(_PLAIN + rb'|([\[{"]))')
_ITEM = re.compile(_PLAIN + b")" + _SPACE + rb"([,\]}])")  # and what follows it
_KEY = re.compile(_SPACE + _SHORT + _SPACE + b":")
_NEXT = re.compile(_SPACE + rb"([,\]}:])")
_BEGIN = re.compile(_SPACE + rb'(["\]}])')
_HEX = b"[0-9a-fA-F]"
_HIGH, _LOW = rb"\\u[dD][89abAB]" + _HEX * 2, rb"\\u[dD][c-fC-F]" + _HEX * 2  # of a pair
_WHOLE = re.compile(
    rb'(?:[^"\\]++|\\[^u]|'
    + _HIGH
    + b"(?:"
    + _LOW
    + rb"|(?=\\u"
    + _HEX * 4
    + rb"|\\[^u]|[^\\]))"
    + b"|(?!"
    + _HIGH
    + rb")\\u"
    + _HEX * 4
    + b")*"
)
"""As much of a string as ends neither within an escape nor between the halves of a pair."""
_CONSTANTS: dict[bytes, object] = {
    b"true": True,
    b"false": False,
    b"null": None,
    b"NaN": float("nan"),
    b"Infinity": float("inf"),
    b"-Infinity": float("-inf"),
}
_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that begin no character


class RepeatedKey(RequestError):
    """An object that has a key twice: one of its values would be lost."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {quoted(key)} appears more than once in one object")
        self.key = key


class TooManyValues(RequestTooLarge):
    """More values than are allowed."""


def read(body: bytes, most: int, errors: str = "strict") -> object:
    """The content of JSON text. most: values that it may hold. errors: as of `bytes.decode`.

    Raises ValueError for what is no JSON (UnicodeDecodeError for what is not UTF-8), RepeatedKey,
    TooManyValues; RequestError for more than `DEEPEST` lists and objects within each other,
    RequestTooLarge for a key of more than `LONGEST_KEY` characters. Another text of more than
    `LONGEST_WIDE` that is not ASCII becomes a BadType: it is its row's error, if it is a cell.
    """
    return _Reader(body, most, errors).content()


class _Reader:
    """A reading of JSON. Each method reads on from `_at`, a place in the body."""

    def __init__(self, body: bytes, most: int, errors: str) -> None:
        self._body, self._errors = body, errors
        self._at = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
        self._left, self._depth = most, 0
        self._known: dict[bytes, str] = {}

    def content(self) -> object:
        value = self._value()
        self._skip()
        if self._at < len(self._body):
            raise self._error("Extra data")
        return value

    def _value(self) -> object:
        match = self._match(_VALUE)
        if match is None:
            raise self._error("Expecting value")
        begin, end = match[5], match.end()
        if begin is None:
            self._at = end
            return self._plain(match)
        self._count()
        if begin == b'"':
            self._at = end - 1
            return self._string()
        self._at = end
        self._depth += 1
        if self._depth > DEEPEST:
            raise RequestError("the body is nested too deeply")
        value = self._list() if begin == b"[" else self._object()
        self._depth -= 1
        return value

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooManyValues("too many values")

    def _plain(self, match: re.Match[bytes]) -> object:
        """A short string, a number or a constant."""
        self._count()
        text, digits, fraction, constant = match.group(1, 2, 3, 4)
        if text is not None:
            return str(text, "utf-8", self._errors)
        if constant is not None:
            return _CONSTANTS[constant]
        if max(len(digits), len(fraction)) > _MOST_DIGITS:
            raise ValueError(f"a number of more than {_MOST_DIGITS:,} digits")
        return float(digits + fraction) if fraction else int(digits)

    def _list(self) -> list[object]:
        items: list[object] = []
        while True:
            if match := _ITEM.match(self._body, self._at):  # most of them, at half the time
                self._at = match.end(5)
                items.append(self._plain(match))
                if match[5] == b",":
                    continue
                self._at -= 1
            elif not items and self._ends(b"]"):
                return items
            else:
                items.append(self._value())
            if self._is_last(b"]"):
                return items

    def _object(self) -> dict[str, object]:
        content: dict[str, object] = {}
        if self._ends(b"}"):
            return content
        while True:
            key = self._key()
            if key in content:
                raise RepeatedKey(key)
            content[key] = self._value()
            if self._is_last(b"}"):
                return content

    def _key(self) -> str:
        if match := _KEY.match(self._body, self._at):
            self._at = match.end()
            raw = match[1]
            key = self._known.get(raw)
            if key is None:
                key = str(raw, "utf-8", self._errors)
                if len(self._known) < _MOST_KNOWN:
                    self._known[raw] = key
            return key
        self._skip()
        if self._body[self._at : self._at + 1] != b'"':
            raise self._error("Expecting property name enclosed in double quotes")
        key = cast("str", self._string(LONGEST_KEY))
        match = self._match(_NEXT)
        if match is None or match[1] != b":":
            raise self._error("Expecting ':' delimiter")
        self._at = match.end()
        return key

    def _ends(self, end: bytes) -> bool:
        """Whether a list or an object is empty; its end is passed then."""
        match = self._match(_BEGIN)
        if match is None or match[1] != end:
            return False
        self._at = match.end()
        return True

    def _is_last(self, end: bytes) -> bool:
        """Passes a comma, or the end of a list or an object. Whether it was that."""
        match = self._match(_NEXT)
        if match is None or match[1] not in (b",", end):
            raise self._error("Expecting ',' delimiter")
        self._at = match.end()
        return match[1] == end

    def _match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """A pattern that may follow any number of blanks."""
        match = pattern.match(self._body, self._at)
        if match is None:
            self._skip()
            match = pattern.match(self._body, self._at)
        return match

    def _skip(self) -> None:
        while match := _BLANKS.match(self._body, self._at):
            self._at = match.end()

    def _string(self, most: int | None = None) -> str | BadType:
        """A string that begins here, of at most so many characters; what is wrong with one that is
        wider than any that is read."""
        pieces: list[str] = []
        length, is_ascii = 0, True
        for piece in self._pieces():
            pieces.append(piece)
            length += len(piece)
            is_ascii = is_ascii and piece.isascii()
            if most is not None and length > most:
                raise RequestTooLarge(f"a key of the body has more than {most:,} characters")
            if length > LONGEST_WIDE and not is_ascii:
                pieces.clear()  # and the rest is read for its end
        if length > LONGEST_WIDE and not is_ascii:
            return BadType(TOO_WIDE)
        return pieces[0] if len(pieces) == 1 else "".join(pieces)

    def _pieces(self) -> Iterator[str]:
        body, decoder = self._body, codecs.getincrementaldecoder("utf-8")(self._errors)
        begin = self._at
        self._at += 1
        while True:
            at, stop = self._at, self._at + _PIECE
            end = body.find(b'"', at, stop)
            end = min(stop, len(body)) if end < 0 else end
            if body.find(b"\\", at, end) >= 0:
                match = _WHOLE.match(body, at, stop)
                end = match.end() if match else at
            is_last = body.startswith(b'"', end)
            text = decoder.decode(body[at:end], is_last)
            if end == at and not is_last:
                self._at = begin if stop > len(body) else at
                raise self._error("Unterminated string or invalid \\escape")
            try:
                yield json.loads(f'"{text}"')
            except json.JSONDecodeError as error:
                self._at = at + len(text[: error.pos - 1].encode("utf-8", "surrogatepass"))
                raise self._error(error.msg) from None
            self._at = end + is_last
            if is_last:
                return

    def _error(self, what: str) -> ValueError:
        """What is no JSON, and where, counted in characters as `json` counts them."""
        body, at = self._body, self._at
        line, start = body.count(b"\n", 0, at) + 1, body.rfind(b"\n", 0, at) + 1
        column, place = self._characters(start, at) + 1, self._characters(0, at)
        return ValueError(f"{what}: line {line} column {column} (char {place})")

    def _characters(self, start: int, end: int) -> int:
        pieces = (self._body[at : min(at + _PIECE, end)] for at in range(start, end, _PIECE))
        return sum(len(piece.translate(None, _CONTINUATION)) for piece in pieces)
