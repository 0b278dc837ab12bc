"""A job's images, one after the other: the files of a folder, or the image column of a CSV."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

from score.contract.rows import IMAGE, Row, is_empty
from score.errors import BadColumns, EmptyRow, FetchFailed, RequestError, RowError
from score.fetch.cells import file_below
from score.images.formats import ENDINGS
from score.tables.csv_table import CsvTable, Line

_URL = re.compile(r"\s*https?://[^/?#]*([^?#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a job.

    cell: what stands for it, as in `Row.image`: a RowError where it cannot be had.
    name: the file name it came by; empty where it came by none.
    kept: the cells of its line in the job's table; position: how far the source is read with it.
    """

    cell: object
    name: str
    kept: list[str | None]
    position: int


class SourceImages(Protocol):
    """Where images come from. Use it as a context manager.

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
    """The files below a folder whose ending is an image's, in the order of their paths.

    Hidden files and folders are passed over and linked folders not entered. A linked file is an
    image as long as it lies below the folder itself. Only the names in the folders on the way to
    the file at hand are in memory. Raises RequestError for a folder without images.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.columns = [IMAGE]
        self.size = sum(1 for _ in _files(root))
        if not self.size:
            raise RequestError(f"no image below {root}: no file ends in {_listed(ENDINGS)}")

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[SourceImage]:
        root = self.root.resolve()
        for position, path in enumerate(_files(self.root), 1):
            shown = os.fsencode(path).decode("utf-8", "replace")
            yield SourceImage(_cell(root, path), PurePath(path).name, [shown], position)


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
                # A line that could not be read says so in the other cell.
                unread = line.row.text
                cell = unread if isinstance(unread, RowError) else EmptyRow("is empty")
            yield SourceImage(cell, _name(cell, root), line.kept, line.position)


def _files(root: Path) -> Iterator[str]:
    """Paths below `root`, relative to it, in order."""
    waiting = [("", True)]
    while waiting:
        path, is_folder = waiting.pop()
        if is_folder:
            waiting += sorted(_entries(root, path), reverse=True)
        else:
            yield path


def _entries(root: Path, folder: str) -> Iterator[tuple[str, bool]]:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield path, True
            elif os.path.splitext(entry.name)[1].lower() in ENDINGS and _is_file(entry):
                yield path, False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link other than to a folder: a dead one is an error to report."""
    # os.path's questions take a link to itself for a dead one, where the entry's own raise.
    return os.path.isfile(entry) or (entry.is_symlink() and not os.path.isdir(entry))


def _cell(root: Path, path: str) -> object:
    if (root / path).is_symlink():
        if not os.path.exists(root / path):
            return FetchFailed("is a link that leads nowhere")
        if not (root / path).resolve().is_relative_to(root):
            return FetchFailed("is a link that leads out of the folder")
    return f"./{path}"  # a path, whatever it begins with: `data:` makes a fine file name


def _name(cell: object, root: Path) -> str:
    if not isinstance(cell, str):
        return ""
    if url := _URL.match(cell):
        return urllib.parse.unquote(url[1]).rpartition("/")[2]
    file = file_below(root, cell.strip())
    return PurePath(cell.strip()).name if file else ""


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
