"""A job's rows: the lines of a CSV or parquet file, or the images of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from score.contract.rows import Row
from score.jobs.image_source import Folder
from score.tables.csv_reader import CsvTable
from score.tables.lines import Line, Lines
from score.tables.parquet_reader import SUFFIXES, ParquetTable


def open_lines(source: Path) -> Lines:
    """The rows of a CSV or parquet file, or the images below a folder.

    Raises RequestError for what holds none, FileNotFoundError.
    """
    if source.is_dir():
        return FolderLines(source)
    if source.is_file():
        return ParquetTable(source) if source.suffix in SUFFIXES else CsvTable(source)
    raise FileNotFoundError(f"no such file or folder: {source}")


class FolderLines:
    """A folder's images as the rows of a table whose one column, `image`, holds their paths."""

    def __init__(self, root: Path) -> None:
        self._folder = Folder(root)
        self.root, self.columns, self.size = root, self._folder.columns, self._folder.size

    def __enter__(self) -> FolderLines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Line]:
        for image in self._folder:
            yield Line(Row(image=image.cell), image.kept, image.position)
