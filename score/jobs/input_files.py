"""The files that a job's input names: a file, the tables of a folder, or those of a pattern."""

from __future__ import annotations

import glob
import os
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from score.errors import RequestError
from score.images.formats import ENDINGS
from score.storage.remote import File, Input, RemoteFolder, files_at
from score.wording.quoting import quoted

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, or a folder of images.

    partition: the columns that the folders on its way stand for, as in `year=2024/part-0.parquet`.
    """

    path: Input
    partition: Mapping[str, str | None]


def files_of_folder(root: Path, format_of: Callable[[str], str]) -> list[InputFile]:
    """The tables below a folder, in the order of their paths.

    format_of: a file name's format, empty for what is no table. Hidden files and folders, and those
    whose name begins with `_`, are left out, as tools of parquet do; linked folders are not
    entered. Raises RequestError for tables of two formats.
    """
    found = [(path, path.relative_to(root)) for path in _tables_below(root, format_of)]
    return _files(str(root), found, format_of)


def files_of_pattern(pattern: str, format_of: Callable[[str], str]) -> list[InputFile]:
    """The files that a pattern with `*`, `?`, `[…]` or `**` fits, in the order of their paths.

    Raises RequestError for tables of two formats, FileNotFoundError where nothing fits.
    """
    root = Path(*_fixed_parts(pattern))
    found = glob.glob(pattern, recursive=True)
    files = [Path(path) for path in found if os.path.isfile(path)]
    if not files:  # folders such as year=2024
        files = [path for folder in found for path in _tables_below(folder, format_of)]
    if not files:
        raise FileNotFoundError(f"no file fits {pattern}")
    return _files(str(root), [(path, path.relative_to(root)) for path in files], format_of)


def files_of_url(url: str, format_of: Callable[[str], str]) -> list[InputFile]:
    """What a URL names: a table, the images or tables below a folder, or what a pattern fits.

    Raises RequestError, FileNotFoundError.
    """
    found = files_at(url, lambda name: _is_image(name) or bool(format_of(name)))
    if not found.is_folder:
        return _files(found.root, found.files, format_of)
    if images := [item for item in found.files if _is_image(item[0].name)]:
        return [InputFile(RemoteFolder(found.root, images), {})]
    tables = [item for item in found.files if not any(part[0] == "_" for part in item[1].parts)]
    if not tables:
        raise FileNotFoundError(f"no table and no image at {url}")
    return _files(found.root, tables, format_of)


def is_pattern(source: str) -> bool:
    """Whether a source stands for the files that it fits."""
    return glob.has_magic(source) and not os.path.lexists(source)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS


def _tables_below(root: str | Path, format_of: Callable[[str], str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in names:
            path = Path(folder, name)
            if name[0] not in "._" and format_of(name) and path.is_file():
                yield path


def _fixed_parts(pattern: str) -> Iterator[str]:
    for part in PurePath(pattern).parent.parts:
        if glob.has_magic(part):
            return
        yield part


def _files(
    root: str, found: Sequence[tuple[File, PurePath]], format_of: Callable[[str], str]
) -> list[InputFile]:
    """Files with their paths below `root`, in the order of those."""
    files = sorted(found, key=lambda item: item[1].parts)
    for _, path in files:
        if format_of(path.name) != format_of(files[0][1].name):
            raise RequestError(
                f"{root} holds files of two formats, {quoted(str(files[0][1]))} and "
                f"{quoted(str(path))}: name those of one of them by a pattern such as "
                "'folder/*.csv'"
            )
    return [InputFile(file, _partition(path)) for file, path in files]


def _partition(path: PurePath) -> dict[str, str | None]:
    """The columns of a path's folders, as Hive names them."""
    columns: dict[str, str | None] = {}
    for folder in path.parent.parts:
        name, equals, value = folder.partition("=")
        if name and equals:
            value = urllib.parse.unquote(value)
            columns[urllib.parse.unquote(name)] = None if value == _NO_VALUE else value
    return columns
