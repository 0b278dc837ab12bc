"""One long CSV → shards with its header, for a job that runs on several machines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from score.contract.rows import IMAGE
from score.errors import RequestError
from score.storage import atomic
from score.storage.outputs import check_folder
from score.tables.csv_reader import CsvTable

_LONGEST_PATH = 1024  # characters; a longer cell is an image itself


def split(source: Path, folder: Path, rows: int, *, overwrite: bool = False) -> list[Path]:
    """Writes the rows of a CSV (or .csv.gz) into files of `rows` rows in a folder, in order.

    Cells are not changed, nor are bytes that are not UTF-8. The folder must be new or empty, so
    that it holds no shard of another table; with `overwrite`, older shards are replaced.
    Raises RequestError for a source that is no table or has no rows, for one whose images are
    files, and for a folder that holds something else.
    """
    check_folder(folder, _are_shards, overwrite=overwrite, inputs=[source])
    stem = source.name.partition(".")[0]
    written: list[str] = []
    with atomic.contents(folder) as new, CsvTable(source) as table:
        cells = _without_files(table)
        while batch := list(islice(cells, rows)):
            written.append(_shard(stem, len(written)))
            _write(new / written[-1], table.header, batch)
        if not written:
            raise RequestError(f"{source.name} has no rows")
    return [folder / name for name in written]


def _are_shards(content: Sequence[Path]) -> bool:
    """Whether files are named like the shards of one table: numbered from 0, without gaps."""
    names = {entry.name for entry in content if entry.is_file()}
    stem = min(names, default="").rpartition("-")[0]
    return len(names) == len(content) and names == {
        _shard(stem, number) for number in range(len(names))
    }


def _shard(stem: str, number: int) -> str:
    """A shard's file name. (`sales-20240101.csv` is not taken for one: it is not number 0.)"""
    return f"{stem}-{number:06}.csv"


def _without_files(table: CsvTable) -> Iterator[list[str]]:
    """The rows. Raises RequestError for one that names a file, relative to its CSV's folder."""
    image = table.columns.index(IMAGE) if IMAGE in table.columns else None
    for number, cells in enumerate(table.cells()):
        cell = cells[image] if image is not None and image < len(cells) else ""
        if 0 < len(cell) <= _LONGEST_PATH and "://" not in cell and _is_file(table, cell):
            raise RequestError(
                f"{table.path.name}, row {number}: {cell} is a file here, and machines that share "
                "the work do not see it; name images by URL"
            )
        yield cells


def _is_file(table: CsvTable, cell: str) -> bool:
    try:
        return table.root is not None and (table.root / cell).is_file()
    except (OSError, ValueError):  # no path can be so
        return False


def _write(file: Path, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        table = csv.writer(stream)  # ends lines by CR LF, and so quotes cells with either
        table.writerow(header)
        table.writerows(lines)
