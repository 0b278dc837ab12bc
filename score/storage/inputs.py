"""Text that comes from others, read a line at a time in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import IO

from score.errors import RequestError

MAX_LINE = 64 * 2**20
"""Characters of a line: an inline image of 45 MiB, more than twice the default limit of images."""


def text_stream(binary: IO[bytes], *, inside: bool = False) -> io.TextIOWrapper:
    """UTF-8 text, with or without a byte order mark, in which line ends are as they were.

    inside: the stream does not begin with the text's beginning, so a mark there is a character.
    Bytes that are not UTF-8 become surrogates, which fail their row, not the file.
    """
    encoding = "utf-8" if inside else "utf-8-sig"
    return io.TextIOWrapper(binary, encoding, errors="surrogateescape", newline="")


def bytes_of(text: str) -> int:
    """The bytes that were read as this text of a `text_stream`."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def lines_of(text: IO[str], name: str, first: int = 1) -> Iterator[str]:
    """The lines of a text, each with its end. `name`: of the text, in messages; first: the number
    of its first line there.

    Raises RequestError for a line of more than `MAX_LINE` characters, of which no more are read: a
    few kilobytes of gzip may stand for an endless line.
    """
    lines = iter(partial(text.readline, MAX_LINE + 1), "")
    for number, line in enumerate(lines, first):
        if len(line) > MAX_LINE:
            raise RequestError(f"{name}, line {number} {longer_than(MAX_LINE)}")
        yield line


def longer_than(most: int) -> str:
    """What is wrong with text of more than `most` characters, and what to do about it."""
    return (
        f"is longer than {most:,} characters; give large images as files or URLs (no "
        "SCORE_MAX_IMAGE_BYTES changes this bound), and check that the lines end where they should"
    )
