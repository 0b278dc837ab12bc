"""A data set in torchvision's ImageFolder layout: FOLDER/<label>/<file>, and FOLDER/labels.csv.

It is written under a temporary name and renamed when it is complete. Each image is written to disk
as it is fetched, the same bytes that the model sees, and moved to its label's folder once the label
is known: nothing is fetched twice, and no image waits in memory.

What torchvision would ignore (it goes by file name endings, and does not know GIF, AVIF or JPEG
2000) or show as white or black (16-bit grey, floats) is converted to a PNG of the pixels that the
model saw.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from score.errors import RequestError
from score.images import decode, encode
from score.images.formats import ENDINGS
from score.jobs import file_names
from score.jobs.image_folder_reader import EXTENSIONS
from score.settings import Settings
from score.storage import atomic
from score.storage.outputs import check_folder, check_replaceable
from score.tables.csv_reader import CsvTable
from score.tables.label_writer import LabelWriter

TABLE = "labels.csv"


class Kept(str):
    """An image cell whose bytes are also written to `file`."""

    file: Path

    def __new__(cls, cell: str, file: Path) -> Kept:
        """The cell, and the file for its bytes."""
        kept = super().__new__(cls, cell)
        kept.file = file
        return kept


def keep(image: object, data: bytes) -> None:
    """Writes the bytes fetched for a `Kept` cell to its file. Raises OSError for a full disk."""
    if isinstance(image, Kept):
        image.file.write_bytes(data)


class ImageFolder:
    """A data set that is being written. Use it as a context manager: leaving it renames the folder
    to `output`, leaving it by an exception removes what was written.

    path: where the folder is until then. converted: how many of its images were converted to PNG.
    """

    def __init__(
        self, output: Path, labels: Iterable[str], settings: Settings, *, overwrite: bool = False
    ) -> None:
        """`output`: a folder that is new or empty, or with `overwrite` an older data set.

        `settings`: those by which the model sees images. Raises RequestError for any other folder.
        """
        check(output, overwrite=overwrite)
        self.converted = 0
        self._settings = settings
        self._folders = file_names.folders(labels, taken=[TABLE])
        output = output.resolve()
        self._writing = atomic.folder(
            output, partial(check_folder, output, _is_data_set, overwrite=overwrite)
        )
        self.path = self._writing.__enter__()
        self._staged = self.path.parent / "staged"
        self._staged.mkdir()

    def stage(self, number: int, cell: object) -> object:
        """The cell of image `number`, whose bytes are written to disk when it is fetched."""
        return Kept(cell, self._file(number)) if isinstance(cell, str) else cell

    def place(self, number: int, name: str, label: str) -> str:
        """Moves image `number` to its label, under `name` or one like it.

        Returns its path below the data set, with slashes.
        """
        staged, folder = self._file(number), self._folders[label]
        stem, ending = self._readable(staged, name)
        (self.path / folder).mkdir(exist_ok=True)

        def taken(name: str) -> bool:
            return (self.path / folder / name).exists()

        free = file_names.first_free(stem or f"row-{number}", taken, ending)
        staged.rename(self.path / folder / free)
        return f"{folder}/{free}"

    def _readable(self, staged: Path, name: str) -> tuple[str, str]:
        """(stem, ending) of a file's name. Converts a file that torchvision cannot read."""
        data, settings = staged.read_bytes(), self._settings
        stem, ending = os.path.splitext(name)
        if ending.lower() not in ENDINGS:
            stem, ending = name, decode.ending(data)
        if ending.lower() not in EXTENSIONS:
            ending = decode.ending(data)  # a .jfif is a .jpg
        scaled = settings.wide_pixels == "scale" and decode.is_wide(data)
        if ending.lower() in EXTENSIONS and not scaled:
            return stem, ending
        seen = decode.decode(
            data,
            settings.max_pixels,
            exif_orientation=settings.exif_orientation,
            wide=settings.wide_pixels,
        )
        staged.write_bytes(encode.as_png(seen))
        self.converted += 1
        return stem, ".png"

    def drop(self, number: int) -> None:
        """Removes image `number` if it was fetched."""
        self._file(number).unlink(missing_ok=True)

    def __enter__(self) -> ImageFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writing.__exit__(kind, error, trace)

    def _file(self, number: int) -> Path:
        return self._staged / str(number)


def check(output: Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Raises RequestError unless a data set may be put at `output`."""
    check_folder(output, _is_data_set, overwrite=overwrite, inputs=inputs)
    check_replaceable(output.resolve())  # a linked folder is written where it leads


def _is_data_set(content: Sequence[Path]) -> bool:
    """Whether a folder holds a table that we wrote and the folders of its labels, nothing else."""
    entries = {entry.name: entry for entry in content}
    table = entries.pop(TABLE, None)
    return table is not None and entries.keys() <= _folders_in(table)


def _folders_in(table: Path) -> set[str]:
    """The folders of the files that a data set's table names; none for any other table."""
    try:
        with CsvTable(table) as rows:
            if not {*LabelWriter.columns_of(has_files=True)} <= {*rows.columns}:
                return set()
            column = rows.columns.index("file")
            files = [cells[column] for cells in rows.cells() if column < len(cells)]
    except (RequestError, OSError):
        return set()
    return {file.partition("/")[0] for file in files if file}
