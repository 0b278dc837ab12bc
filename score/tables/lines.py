"""A line of a table, whatever its format: the row to answer, and the cells to keep beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from score.contract.rows import Row

MAX_KEPT_IMAGE = 2048
"""Characters of an image cell that is kept: URLs and paths are, inline images are not."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table.

    row: to answer. kept: the cells to write beside the answer. position: how far the table has been
    read with this line, in the unit of `Lines.size`.
    """

    row: Row
    kept: list[str | None]
    position: int


class Lines(Protocol):
    """A job's rows, read as they are asked for. Use it as a context manager.

    columns: of the cells that the lines keep. root: the folder below which image cells may name
    files. size: the last line's position: bytes of a CSV file, rows of a parquet file, images of a
    folder.
    """

    columns: list[str]
    root: Path
    size: int

    def __enter__(self) -> Lines: ...
    def __exit__(self, *_: object) -> None: ...
    def __iter__(self) -> Iterator[Line]: ...


def kept_cells(cells: list[str | None], image: int | None) -> list[str | None]:
    """A line's cells as an output keeps them: without an inline image in the column `image`."""
    if image is not None and (cell := cells[image]):
        inline = len(cell) > MAX_KEPT_IMAGE or cell[:5].lower() == "data:"
        cells[image] = None if inline else cell
    return [None if cell is None else as_utf8(cell) for cell in cells]


def distinct(header: list[str]) -> list[str]:
    """Column names as pandas gives them to nameless and repeated columns."""
    names: dict[str, None] = {}
    repeated = Counter[str]()  # of each name: counting again would be slow in a header of megabytes
    for number, name in enumerate(header):
        unique = name = as_utf8(name) or f"Unnamed: {number}"
        while unique in names:
            repeated[name] += 1
            unique = f"{name}.{repeated[name]}"
        names[unique] = None
    return list(names)


def as_utf8(text: str) -> str:
    """Text without surrogates: bytes that are not UTF-8 become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
