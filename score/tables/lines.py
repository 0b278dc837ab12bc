"""A line of a table, whatever its format: the row to answer, and the cells to keep beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from score.contract.limits import check_column_count
from score.contract.rows import COLUMNS, IMAGE, Row, check_columns
from score.errors import BadColumns
from score.storage.remote import Input
from score.wording.quoting import listed, quoted

MAX_KEPT_IMAGE = 2048
"""Characters of an image cell that is kept: URLs and paths are, inline images are not."""

NO_NAMES: Mapping[str, str] = MappingProxyType({})
"""Of a table whose columns have our names."""

Types = Mapping[str, Any]
"""Column → its Arrow type. Columns that are not named hold text."""

ALL_TEXT: Types = MappingProxyType({})

Mark = tuple[int, ...]
"""A place in a table, between two lines. Its numbers, which a file may keep as a JSON list, mean
something to the table's reader alone."""


class EmptyTable(BadColumns):
    """A file without anything in it, not even columns: of several files one of no rows.

    What to do: leave the file out, or give it a header or a line.
    """


class Line(NamedTuple):  # which is made in a third of the time of a frozen dataclass
    """A line of a table.

    row: to answer. kept: the cells to write beside the answer, of the types that `Lines.types`
    tells. position: how far the table has been read with this line, in the unit of `Lines.size`.
    mark: where the table goes on after this line.
    """

    row: Row
    kept: list[object]
    position: int
    mark: Mark

    def bare(self) -> Line:
        """The same without its row, which may hold an inline image of many megabytes."""
        return Line(_NO_ROW, self.kept, self.position, self.mark)


_NO_ROW = Row()


class Lines(Protocol):
    """A job's rows, read as they are asked for. Use it as a context manager.

    columns: of the cells that the lines keep. types: of those that hold no text. root: the folder
    below which image cells may name files; None for a table in an object store. size: the last
    line's position: bytes of a CSV file, rows of a parquet file, images of a folder. files: those
    whose content is the input; for a folder of images the folder.
    """

    columns: list[str]
    types: Types
    root: Path | None
    size: int
    files: list[Input]

    def __enter__(self) -> Lines: ...
    def __exit__(self, *_: object) -> None: ...
    def __iter__(self) -> Iterator[Line]: ...

    def after(self, mark: Mark | None) -> Iterator[Line]:
        """The lines after a mark, or all for None, exactly as an uninterrupted reading gives them.

        May be called any number of times; each call ends what an earlier one still gives. Raises
        RequestError for a mark behind the end, which is another table's.
        """
        ...


def folder_of(file: Input) -> Path | None:
    """The folder of a file that is here."""
    return file.parent if isinstance(file, Path) else None


def check_header(names: Sequence[object], table: str) -> None:
    """Raises BadColumns for too many columns, and as `check_columns`. `table`: its name."""
    check_column_count(len(names), table)
    check_columns(names)


def places_of(
    names: Sequence[str], table: str, chosen: Mapping[str, str] = NO_NAMES
) -> dict[str, int]:
    """The numbers of the columns that rows are made of, by `image` and `text`.

    chosen: the table's own names of these columns, where it has others: a column `text` is one to
    keep where another is chosen for `text`. Raises as `check_header`, and BadColumns for a chosen
    column that is missing, ambiguous, or used for both.
    """
    check_chosen(chosen)
    at = table.rstrip(",")
    for ours, theirs in chosen.items():
        if (count := list(names).count(theirs)) != 1:
            there = f"appears {count} times" if count else f"is missing; there are {listed(names)}"
            raise BadColumns(
                f"{at}: the column {quoted(theirs)}, which is chosen for {ours!r}, {there}"
            )
    ours_of = {theirs: ours for ours, theirs in chosen.items()}
    for wanted in COLUMNS:
        if wanted not in chosen and wanted in ours_of:
            raise BadColumns(
                f"{at}: the column {wanted!r} is chosen for {ours_of[wanted]!r}, and would be "
                f"used for {wanted!r}, too: choose another for that"
            )
    renamed = [ours_of.get(name, None if name in chosen else name) for name in names]
    check_header(renamed, table)
    return {wanted: renamed.index(wanted) for wanted in COLUMNS if wanted in renamed}


def check_chosen(chosen: Mapping[str, str]) -> None:
    """Raises BadColumns unless only `image` and `text` have chosen columns, and different ones."""
    for ours in chosen:
        if ours not in COLUMNS:
            raise BadColumns(
                f"a column is chosen for {quoted(ours)}; rows have only 'image' and 'text'"
            )
    if len({*chosen.values()}) < len(chosen):
        raise BadColumns(
            f"the column {quoted(chosen[IMAGE])} is chosen both for 'image' and for 'text'"
        )


def kept_cells(cells: list[object], image: int | None) -> list[object]:
    """A line's cells as an output keeps them: without an inline image in the column `image`."""
    if image is not None and isinstance(cell := cells[image], str):
        inline = len(cell) > MAX_KEPT_IMAGE or cell[:5].lower() == "data:"
        cells[image] = None if inline else cell
    return [
        as_utf8(cell) if isinstance(cell, str) and not cell.isascii() else cell for cell in cells
    ]


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


def cell_text(cell: object) -> str | None:
    """A cell as the output's columns hold it: lists and structs as JSON; None for bytes, which are
    inline images."""
    if cell is None or isinstance(cell, (bytes, bytearray)):
        return None
    return json.dumps(cell, default=str) if isinstance(cell, (list, dict)) else str(cell)


def as_utf8(text: str) -> str:
    """Text whose surrogates are replaced: bytes that are not UTF-8, halves of characters."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, as JSON may spell one
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def is_unicode(text: str) -> bool:
    """Whether a text has no surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
