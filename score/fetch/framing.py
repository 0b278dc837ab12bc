"""HTTP/1.1 answers, read within bounds: heads, body lengths and chunks, by RFC 9112. Pure.

Python's `http.client` takes 103 Early Hints for the answer, refuses more than 100 header fields,
ignores contradictory Content-Length fields, and reads `-1` as the size of a chunk. Violations
whose meaning is unambiguous are accepted here, as in browsers: bare line feeds, lines without a
colon, blanks before a colon, folded lines.
"""

from __future__ import annotations

import http.client
import io
import re
from dataclasses import dataclass
from functools import cached_property

from typing_extensions import override

_MAX_HEAD = 128 * 1024  # bytes of an answer's head, those of informational answers included
_MAX_FIELDS = 1000
_MAX_INTERIM = 100  # informational answers before the final one
_MAX_CHUNK_LINE = 4096
_BLANKS = " \t"  # `str.strip()` alone would take the last byte of a UTF-8 `à`, too
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) +([1-9][0-9]{2})(?: (.*))?", re.DOTALL)
_DIGITS = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


class Malformed(http.client.HTTPException):
    """An answer that violates RFC 9112. Its `str` continues a message that begins with the URL."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True)
class Head:
    """A status line and header fields, in the order they came."""

    version: int  # 10 or 11
    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """The comma-separated members of all fields of that name, without blanks."""
        lines = [value for field, value in self.fields if field.lower() == name]
        members = [member.strip(_BLANKS) for line in lines for member in line.split(",")]
        return [member for member in members if member]

    @cached_property
    def chunked(self) -> bool:
        """Whether the body comes in chunks. Raises Malformed for codings that we do not know."""
        codings = [value.lower() for value in self.values("transfer-encoding")]
        codings = [coding for coding in codings if coding != "identity"]
        if codings not in ([], ["chunked"]):
            shown = ", ".join(codings)[:40]
            raise Malformed(f"sent an unknown Transfer-Encoding: {shown}", retryable=False)
        return bool(codings)

    @cached_property
    def length(self) -> int | None:
        """Bytes of the body; None where it ends with its last chunk or with the connection.

        Raises Malformed for a Content-Length that is no number, or two (RFC 9112, 6.3).
        """
        if self.status < 200 or self.status in (204, 304):
            return 0
        if self.chunked:
            return None
        lengths = self.values("content-length")
        if not all(map(_DIGITS.fullmatch, lengths)) or len(set(map(int, lengths))) > 1:
            shown = ", ".join(lengths)[:40]
            raise Malformed(f"sent an unusable Content-Length: {shown}", retryable=False)
        return int(lengths[0]) if lengths else None

    @property
    def persists(self) -> bool:
        """Whether another request may follow on the connection (RFC 9112, 9.3)."""
        if self.status == 101:  # Switching Protocols
            return False
        if self.length is None and not self.chunked:
            return False
        if self.chunked and self.values("content-length"):  # possible request smuggling (6.1)
            return False
        options = [value.lower() for value in self.values("connection")]
        return "close" not in options if self.version == 11 else "keep-alive" in options


def read_head(stream: io.BufferedReader) -> Head:
    """The head of the final answer, informational ones (1xx) before it skipped.

    Raises RemoteDisconnected where nothing at all comes, Malformed.
    """
    lines = _Lines(stream)
    for _ in range(_MAX_INTERIM + 1):
        head = _one_head(lines)
        # 101 is final: it says that the connection speaks another protocol from now on.
        if head.status >= 200 or head.status == 101:
            return head
    raise Malformed("sent informational answers without end", retryable=False)


def _one_head(lines: _Lines) -> Head:
    match = _STATUS_LINE.fullmatch(lines.next())
    if match is None:
        raise Malformed("did not speak HTTP/1.1")
    fields: list[tuple[str, str]] = []
    while line := lines.next():
        text = line.decode("latin-1")
        name, colon, value = text.partition(":")
        if text[0] in " \t":  # a folded line goes on with the one before it
            if fields:
                fields[-1] = (
                    fields[-1][0],
                    f"{fields[-1][1]} {text.strip(_BLANKS)}".strip(_BLANKS),
                )
        elif colon and name.strip(_BLANKS):
            fields.append((name.strip(_BLANKS), value.strip(_BLANKS)))
        if len(fields) > _MAX_FIELDS:
            raise Malformed(f"sent more than {_MAX_FIELDS:,} header fields", retryable=False)
    reason = (match[3] or b"").decode("latin-1").strip()
    return Head(11 if match[1] != b"0" else 10, int(match[2]), reason, tuple(fields))


class _Lines:
    """A head's lines without their ends, bounded in all."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._left = _MAX_HEAD

    def next(self) -> bytes:
        line = self._stream.readline(self._left + 1)
        if not line and self._left == _MAX_HEAD:
            raise http.client.RemoteDisconnected("closed without an answer")
        self._left -= len(line)
        if self._left < 0:
            raise Malformed(f"sent more than {_MAX_HEAD // 1024} KiB of headers", retryable=False)
        if not line.endswith(b"\n"):
            raise Malformed("broke off within its headers")
        return line.rstrip(b"\r\n")


class Chunks(io.RawIOBase):
    """The body that a stream carries in chunks; extensions and trailers are ignored."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._left = 0  # bytes of the chunk being read
        self._first = True
        self._over = False

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._left and not self._over:
            self._begin_chunk()
        if self._over:
            return 0
        count = self._stream.readinto1(memoryview(buffer)[: self._left])
        if not count:
            raise Malformed("broke off within a chunk")
        self._left -= count
        return count

    @override
    def close(self) -> None:
        self._stream.close()
        super().close()

    def _begin_chunk(self) -> None:
        if not self._first and self._stream.readline(2) not in (b"\r\n", b"\n"):
            raise Malformed("sent a chunk that is longer than it says")
        self._first = False
        line = self._stream.readline(_MAX_CHUNK_LINE)
        size = line.partition(b";")[0].strip()
        if not line.endswith(b"\n") or not _CHUNK_SIZE.fullmatch(size):
            raise Malformed("broke off between two chunks, or sent one without a size")
        self._left = int(size, 16)
        if not self._left:
            self._over = True
            self._skip_trailers()

    def _skip_trailers(self) -> None:
        left = _MAX_HEAD
        # Some servers close the connection without the empty line: the body is whole all the same.
        while (line := self._stream.readline(left + 1)).rstrip(b"\r\n"):
            left -= len(line)
            if left < 0:
                raise Malformed("sent trailers without end", retryable=False)
