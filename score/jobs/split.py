"""One long CSV → many short ones, each with the header, for a job to divide among machines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from score.errors import RequestError
from score.rows import IMAGE
from score.tables import CsvTable

_LONGEST_PATH = 1024  # characters; a longer cell is a picture itself


def split(source: Path, folder: Path, rows: int) -> list[Path]:
    """Writes the rows of a CSV (or .csv.gz), so many a file, into a folder, in order.

    Cells are kept as they are, bytes that are not UTF-8 too. The folder must be new or empty, so
    that no shard of another table is taken along. Raises RequestError for a source that is no
    table or has no rows, for one whose pictures are files, and for a folder that is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise RequestError(f"{folder} is not empty: name another, or empty it")
    made: list[Path] = []
    try:
        with CsvTable(source) as table:
            cells = _without_files(table)
            stem = source.name.partition(".")[0]
            while batch := list(islice(cells, rows)):
                made.append(folder / f"{stem}-{len(made):06}.csv")
                _write(made[-1], table.header, batch)
        if not made:
            raise RequestError(f"{source.name} has no rows")
    except BaseException:  # half a table is no table
        for file in made:
            file.unlink(missing_ok=True)
        raise
    return made


def _without_files(table: CsvTable) -> Iterator[list[str]]:
    """The rows, none of which names a file: a path is one below its CSV's folder, and moves."""
    image = table.columns.index(IMAGE) if IMAGE in table.columns else None
    for number, cells in enumerate(table.cells()):
        cell = cells[image] if image is not None and image < len(cells) else ""
        if 0 < len(cell) <= _LONGEST_PATH and "://" not in cell and _is_file(table, cell):
            raise RequestError(
                f"{table.path.name}, row {number}: {cell} is a file here, and machines that share "
                "the work do not see it; name pictures by URL"
            )
        yield cells


def _is_file(table: CsvTable, cell: str) -> bool:
    try:
        return (table.path.parent / cell).is_file()
    except (OSError, ValueError):  # no path can be so
        return False


def _write(file: Path, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    part = file.with_name(file.name + ".part")
    try:
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            table = csv.writer(stream)  # ends lines by CR LF, and so quotes cells with either
            table.writerow(header)
            table.writerows(lines)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
