"""Decodes a body by its `Content-Encoding`: gzip, deflate, br and zstd (RFC 9110, 8.4.1).

The size is limited during decoding. The header is often wrong, since object stores keep whatever
an upload declared: a body that does not decode, but begins like an image, is returned as it is.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any

from score.errors import FetchFailed

_MOST_CODINGS = 5
_MOST_MEMBERS = 100  # gzip members or zstd frames: each costs a copy of all that follow it
_ZSTD_WINDOW_LOG = 23  # 8 MiB, the most that RFC 9659 lets a server use
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")

Decode = Callable[[bytes, int], bytes]
"""(encoded bytes, limit) → at most `limit` decoded bytes. Raises _Undecodable."""


class _Undecodable(Exception):
    """The bytes are not in the declared encoding."""


def decoded(body: bytes, header: str, limit: int) -> bytes:
    """A body without the codings that a Content-Encoding header lists, the last one applied first.

    Stops at `limit + 1` bytes, which shows that the limit is exceeded. Raises FetchFailed.
    """
    names = [name.strip().lower() for name in header.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > _MOST_CODINGS:
        raise FetchFailed(f"Content-Encoding lists more than {_MOST_CODINGS} codings")
    for name in reversed(names):
        if len(body) > limit:
            break
        try:
            body = _undone(name, body, limit + 1)
        except _Undecodable as error:
            if body.startswith(_IMAGES):
                return body
            raise FetchFailed(f"Content-Encoding {_shown(name)}: {error}") from None
    return body


def _undone(name: str, body: bytes, most: int) -> bytes:
    if name not in _DECODERS:
        raise _Undecodable("cannot be decoded here")
    return _DECODERS[name](body, most)


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in name[:30])


def _gzip(data: bytes, most: int) -> bytes:
    return _members(data, most, lambda: _Zlib(16 + zlib.MAX_WBITS))


def _deflate(data: bytes, most: int) -> bytes:
    """The zlib format, or without its header, which some servers leave out."""
    try:
        return _members(data, most, lambda: _Zlib(zlib.MAX_WBITS))
    except _Undecodable:
        return _members(data, most, lambda: _Zlib(-zlib.MAX_WBITS))


def _brotli(data: bytes, most: int) -> bytes:
    try:
        import brotli
    except ImportError:
        raise _Undecodable("needs the Python package brotli") from None
    decoder = brotli.Decompressor()
    try:
        body: bytes = decoder.process(data, output_buffer_limit=most)
    except brotli.error:
        raise _Undecodable("the body is not brotli") from None
    if not decoder.is_finished() and len(body) < most:
        raise _Undecodable("the body is cut short")
    return body[:most]


def _zstd(data: bytes, most: int) -> bytes:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise _Undecodable("needs the Python package backports.zstd") from None
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    return _members(data, most, lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError)


class _Zlib:
    """zlib's decompressor with the signature of zstd's."""

    def __init__(self, bits: int) -> None:
        self._decoder = zlib.decompressobj(bits)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(data, max_length)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data


def _members(
    data: bytes, most: int, decoder: Callable[[], Any], error: type[Exception] = zlib.error
) -> bytes:
    """All members, concatenated; bytes after the last one that are no member are ignored."""
    body = bytearray()
    for count in range(_MOST_MEMBERS):
        member = decoder()
        try:
            body += member.decompress(data, max_length=most - len(body))
        except error:
            if count:
                return bytes(body)
            raise _Undecodable("the body is not so encoded") from None
        if len(body) >= most:
            return bytes(body)
        if not member.eof:
            raise _Undecodable("the body is cut short")
        data = member.unused_data
        if not data:
            return bytes(body)
    raise _Undecodable(f"the body has more than {_MOST_MEMBERS} parts")


_DECODERS: dict[str, Decode] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
