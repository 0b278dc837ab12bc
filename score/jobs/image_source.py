"""A job's images, read lazily: the files of a folder, or the image column of a CSV."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Protocol

from score.contract.rows import IMAGE, is_empty
from score.errors import BadColumns, EmptyRow, RequestError, RowError
from score.fetch.cells import file_below
from score.images.formats import ENDINGS
from score.jobs.image_files import image_cell, image_files
from score.storage.remote import RemoteFolder
from score.tables.csv_reader import CsvTable

_URL = re.compile(r"\s*https?://[^/?#]*([^?#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a job.

    cell: as `Row.image`; a RowError where there is no image.
    name: the file name in the cell's path or URL; empty without one.
    kept: the cells of its line in the job's table. position: how far the source has been read with
    it, in the unit of `size`.
    """

    cell: object
    name: str
    kept: list[object]
    position: int


class SourceImages(Protocol):
    """A job's images. Use it as a context manager.

    columns: of the lines that the images keep; root: the folder below which cells may name files;
    size: the last image's position.
    """

    columns: list[str]
    root: Path
    size: int

    def __enter__(self) -> SourceImages: ...
    def __exit__(self, *_: object) -> None: ...
    def __iter__(self) -> Iterator[SourceImage]: ...


def open_images(source: Path) -> SourceImages:
    """The images of a folder or of a CSV file. Raises RequestError, FileNotFoundError."""
    if source.is_dir():
        return Folder(source)
    if source.is_file():
        return Table(source)
    raise FileNotFoundError(f"no such file or folder: {source}")


class Folder:
    """The `image_files` below a folder. A linked file counts as long as it lies below the folder.

    Raises RequestError for a folder without images.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.columns = [IMAGE]
        self.size = sum(1 for _ in image_files(root))
        if not self.size:
            raise RequestError(f"no image below {root}: no file ends in {_listed(ENDINGS)}")

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[SourceImage]:
        return self.after(0)

    def after(self, count: int) -> Iterator[SourceImage]:
        """The images without the first ones."""
        root = self.root.resolve()
        paths = islice(image_files(self.root), count, None)
        for position, path in enumerate(paths, count + 1):
            shown = os.fsencode(path).decode("utf-8", "replace")
            yield SourceImage(image_cell(root, path), PurePath(path).name, [shown], position)


class RemoteImages:
    """The images below a folder in an object store. Each cell is the `RemoteFile`."""

    def __init__(self, folder: RemoteFolder) -> None:
        self.columns = [IMAGE]
        self._files = folder.files
        self.size = len(self._files)

    def after(self, count: int) -> Iterator[SourceImage]:
        """As `Folder.after`."""
        for position, (file, path) in enumerate(islice(self._files, count, None), count + 1):
            yield SourceImage(file, file.name, [str(path)], position)


class Table:
    """The rows of a CSV file with an `image` column. Raises BadColumns, RequestError."""

    def __init__(self, path: Path) -> None:
        self.root = path.parent
        self._table = CsvTable(path)
        self.columns = self._table.columns
        self.size = self._table.size
        if IMAGE not in self.columns:
            self._table.__exit__()
            raise BadColumns(f"{path.name} has no column 'image'")

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.__exit__()

    def __iter__(self) -> Iterator[SourceImage]:
        root = self.root.resolve()
        for line in self._table:
            cell = line.row.image
            if is_empty(cell):
                # The error of a line that cannot be read is in the text cell.
                error = line.row.text
                cell = error if isinstance(error, RowError) else EmptyRow("is empty")
            yield SourceImage(cell, _name(cell, root), line.kept, line.position)


def _name(cell: object, root: Path) -> str:
    if not isinstance(cell, str):
        return ""
    if url := _URL.match(cell):
        return urllib.parse.unquote(url[1]).rpartition("/")[2]
    file = file_below(root, cell.strip())
    return PurePath(cell.strip()).name if file else ""


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
