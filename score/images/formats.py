"""The image formats that may be opened: names, file name endings, first bytes.

Knows bytes; nothing of Pillow.
"""

from __future__ import annotations

import re

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM")
"""Pillow's names of the formats that may be opened. Others are dangerous: EPS runs a program, ICO
may state a wrong size.

(MPO, a phone's JPEG with further images after it, is opened as the JPEG it begins with.)
"""

FORMAT_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".mpo"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
ENDINGS = frozenset(ending for endings in FORMAT_ENDINGS.values() for ending in endings)
"""The file name endings of those formats, in lower case."""

# First bytes by format; the two letters of BMP and PPM are too few to tell them.
_SIGNATURES = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<GIF>GIF8[79]a)"
    rb"|(?P<WEBP>RIFF....WEBP)|(?P<AVIF>....ftypavi[fs])|(?P<TIFF>II\*\0|MM\0\*|II\+\0|MM\0\+)"
    rb"|(?P<JPEG2000>\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)",
    re.DOTALL,
)


def signed(data: bytes) -> str | None:
    """The format that a file's first bytes say it has; None where they say nothing."""
    signature = _SIGNATURES.match(data)
    return signature.lastgroup if signature else None


def guess(data: bytes) -> str:
    """Why bytes are not an image, as far as their beginning tells."""
    if not data:
        return "0 bytes"
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or SVG, not an image of pixels"
    if head.startswith((b"{", b"[")):
        return "looks like JSON, not an image"
    return f"{len(data):,} bytes that are no image in {', '.join(FORMATS)}"
