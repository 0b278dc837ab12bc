"""A job's rows: the lines of tables, each read as its name says, or the images of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath

from score.contract.rows import IMAGE, Row
from score.errors import RequestError
from score.images.formats import ENDINGS
from score.jobs.image_files import image_files
from score.jobs.image_source import Folder, RemoteImages
from score.jobs.input_files import (
    InputFile,
    files_of_folder,
    files_of_pattern,
    files_of_url,
    is_pattern,
)
from score.jobs.table_chain import TableChain
from score.storage.remote import File, Input, RemoteFolder, is_remote
from score.tables.csv_reader import CsvTable
from score.tables.jsonl_reader import JsonlTable
from score.tables.lines import ALL_TEXT, NO_NAMES, Line, Lines, Mark, check_chosen, places_of
from score.tables.parquet_reader import SUFFIXES, ParquetTable
from score.tables.tar_reader import TarTable
from score.tables.tsv_reader import TsvTable

Reader = Callable[[File, Mapping[str, str]], Lines]
"""(file, the table's own names of our columns) → its lines."""


def _tar(path: File, chosen: Mapping[str, str]) -> Lines:
    return TarTable(path, chosen, image_endings=ENDINGS)


_PACKABLE: Mapping[str, Reader] = {
    ".csv": CsvTable,
    ".tsv": TsvTable,
    ".jsonl": JsonlTable,
    ".ndjson": JsonlTable,
    ".tar": _tar,
}
READERS: Mapping[str, Reader] = {
    **dict.fromkeys(SUFFIXES, ParquetTable),
    ".tgz": _tar,
    **{end + packing: read for end, read in _PACKABLE.items() for packing in ("", ".gz", ".zst")},
}
"""The endings of file names, in lower case → what reads them. Other files are read as CSV."""


def open_lines(
    sources: str | Path | Sequence[str | Path], columns: Mapping[str, str] = NO_NAMES
) -> Lines:
    """The rows of tables one after the other, or the images below a folder.

    sources: files, folders of images, folders of tables of one format, patterns such as
    `data/*.parquet`; also URLs of such in an object store, as `s3://bucket/a.csv`, or of a table on
    a web server. columns: the tables' own names of our columns, as in `{"image": "url", "text":
    "caption"}`. Raises BadColumns for columns that are missing, used twice, or different in two
    files, RequestError for what holds no rows or cannot be read, FileNotFoundError, ImportError.
    """
    check_chosen(columns)
    named = [sources] if isinstance(sources, (str, Path)) else list(sources)
    found = [(source, file) for source in named for file in _inputs(source)]
    inputs = [file for _, file in found]
    if not inputs:
        raise RequestError("no input is named")
    themselves = [file.path for source, file in found if _is_itself(source, file.path)]
    if len(named) == 1 and themselves:
        return _opened(themselves[0], columns)
    return TableChain(inputs, partial(_opened, columns=columns), themselves)


def reader_of(name: str) -> Reader | None:
    """What reads a file of this name; None for an ending that is not in `READERS`."""
    lower = name.lower()
    return next((reader for end, reader in READERS.items() if lower.endswith(end)), None)


def _inputs(source: str | Path) -> list[InputFile]:
    if is_remote(source):
        return files_of_url(str(source), _format_of)
    path = Path(source)
    if is_pattern(str(source)):
        return files_of_pattern(str(source), _format_of)
    if path.is_dir() and next(image_files(path), None) is None:
        return files_of_folder(path, _format_of) or [InputFile(path, {})]
    if not path.is_file() and not path.is_dir():
        raise FileNotFoundError(f"no such file or folder: {source}")
    return [InputFile(path, {})]


def _is_itself(source: str | Path, file: Input) -> bool:
    """Whether a source names a file, or a folder of images, and not what holds it."""
    if isinstance(file, Path):
        return file == Path(source)
    return PurePath(str(source)).name == file.name


def _format_of(name: str) -> str:
    reader = reader_of(name)
    return getattr(reader, "__name__", "")


def _opened(path: Input, columns: Mapping[str, str]) -> Lines:
    if isinstance(path, RemoteFolder) or (isinstance(path, Path) and path.is_dir()):
        return FolderLines(path, columns)
    return (reader_of(path.name) or CsvTable)(path, columns)


class FolderLines:
    """A folder's images as the rows of a table whose one column, `image`, holds their paths.

    Its marks are numbers of images.
    """

    def __init__(self, root: Path | RemoteFolder, chosen: Mapping[str, str] = NO_NAMES) -> None:
        """`chosen`: as for `places_of`. Raises BadColumns, RequestError for one without images."""
        places_of([IMAGE], f"the folder {root}", chosen)
        self.root = root if isinstance(root, Path) else None
        self._folder = Folder(root) if isinstance(root, Path) else RemoteImages(root)
        self.columns, self.size = self._folder.columns, self._folder.size
        self.types = ALL_TEXT
        self.files: list[Input] = [root]

    def __enter__(self) -> FolderLines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Line]:
        return self.after(None)

    def after(self, mark: Mark | None) -> Iterator[Line]:
        """As `Lines.after`."""
        (count,) = mark or (0,)
        if count > self.size:
            raise RequestError(
                f"{self.files[0]} holds {self.size:,} images, and its reading should go on after "
                f"{count:,}: it is not as it was read before"
            )
        return self._after(count)

    def _after(self, count: int) -> Iterator[Line]:
        for image in self._folder.after(count):
            place = image.position
            yield Line(Row(image=image.cell), image.kept, place, (place,))
