"""A data set in torchvision's ImageFolder layout: FOLDER/<label>/<file>, and FOLDER/labels.csv.

It is made beside its place, under a hidden name, and moved there when it is whole. Images come to
the disk as they are fetched, the very bytes that the model sees, and are moved to their label once
it is known: nothing is fetched twice and nothing waits in memory.

What torchvision would pass over (it looks at endings, and knows no GIF, AVIF or JPEG 2000) or show
as white or black (16-bit grey, floats) becomes a PNG of the pixels that the model saw.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import mkdtemp

from typing_extensions import override

from score.errors import RequestError
from score.fetch.fetcher import Fetcher
from score.images import decode, encode
from score.images.formats import ENDINGS
from score.jobs import file_names
from score.jobs.class_folders import EXTENSIONS
from score.settings import Settings
from score.storage.outputs import check_folder, check_replaceable, put_in_place
from score.tables.csv_table import CsvTable
from score.tables.writers import VerdictWriter

TABLE = "labels.csv"


class Kept(str):
    """An image cell whose bytes are to be left in `file` as well."""

    file: Path

    def __new__(cls, cell: str, file: Path) -> Kept:
        """The cell, with the place for its bytes."""
        kept = super().__new__(cls, cell)
        kept.file = file
        return kept


class KeepingFetcher(Fetcher):
    """Leaves what it fetches where a `Kept` cell says. Raises OSError where the disk is full."""

    @override
    def fetch(self, image: object, root: Path | None = None, until: float | None = None) -> bytes:
        data = super().fetch(image, root, until)
        if isinstance(image, Kept):
            image.file.write_bytes(data)
        return data


class ImageFolder:
    """The data set in the making. Use it as a context manager: leaving it puts the folder in its
    place, leaving it by an exception removes what was begun.

    converted: how many of the images placed so far are PNGs made here.
    """

    def __init__(
        self, output: Path, labels: Iterable[str], settings: Settings, *, overwrite: bool = False
    ) -> None:
        """`output`: a folder that is new or empty, or with `overwrite` an older data set.

        `settings`: those by which the model sees images. Raises RequestError for any other folder.
        """
        check(output, overwrite=overwrite)
        self.converted = 0
        self._settings, self._overwrite = settings, overwrite
        self._output = output.resolve()
        self._folders = file_names.folders(labels, taken=[TABLE])
        self._output.parent.mkdir(parents=True, exist_ok=True)
        self._begun = Path(mkdtemp(dir=self._output.parent, prefix=f".{self._output.name}."))
        self._staged, self.path = self._begun / "staged", self._begun / "made"
        self._staged.mkdir()
        self.path.mkdir()

    def stage(self, number: int, cell: object) -> object:
        """The cell of image `number`, which brings the bytes to disk when it is fetched."""
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
        """(stem, ending) of the name for a file, which is made one that torchvision reads."""
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
        """Removes image `number`, if its bytes ever came."""
        self._file(number).unlink(missing_ok=True)

    def __enter__(self) -> ImageFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                put_in_place(self.path, self._output, _is_data_set, overwrite=self._overwrite)
        finally:
            # Renamed first: a download still under way must find no place to write to.
            gone = self._begun.with_name(self._begun.name + ".gone")
            self._begun.rename(gone)
            shutil.rmtree(gone)

    def _file(self, number: int) -> Path:
        return self._staged / str(number)


def check(output: Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Raises RequestError unless a data set may be put at `output`."""
    check_folder(output, _is_data_set, overwrite=overwrite, inputs=inputs)
    check_replaceable(output)


def _is_data_set(content: Sequence[Path]) -> bool:
    """Whether a folder holds a table of ours and the folders of its labels, nothing else."""
    entries = {entry.name: entry for entry in content}
    table = entries.pop(TABLE, None)
    return table is not None and entries.keys() <= _folders_in(table)


def _folders_in(table: Path) -> set[str]:
    """The folders of the files that a data set's table names; none for a table of others."""
    try:
        with CsvTable(table) as rows:
            if not {*VerdictWriter.columns_of(placed=True)} <= {*rows.columns}:
                return set()
            place = rows.columns.index("file")
            files = [cells[place] for cells in rows.cells() if place < len(cells)]
    except (RequestError, OSError):
        return set()
    return {file.partition("/")[0] for file in files if file}
