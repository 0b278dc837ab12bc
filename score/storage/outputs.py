"""Where a job may write: one rule for files and folders that are there already.

What exists is refused; with `overwrite` it is replaced, once the new output is complete. Of
folders, only those that a job of the same kind wrote are replaced: a mistyped name costs nobody
their files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from score.errors import RequestError

_BEGUN = ".begun-"  # what names of unfinished folders begin with

EXISTS = "is there already: name another output, or pass --overwrite to replace it"


def check_files(
    files: Iterable[Path], *, overwrite: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Raises RequestError unless each of a job's files may be written.

    `inputs`: what the job reads, which no output may replace, overwriting or not.
    """
    files = list(files)
    check_inputs(files, inputs)
    for file in files:
        if file.is_dir():
            raise RequestError(f"{file} is a folder")
        if file.exists() and not overwrite:
            raise RequestError(f"{file} {EXISTS}")
        _check_writable(file.parent)


def check_inputs(files: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises RequestError where one of a job's outputs is one of its inputs."""
    read = [source.resolve() for source in inputs]
    for file in files:
        if file.resolve() in read:
            raise RequestError(f"the output would replace the input {file}")


def check_folder(
    folder: Path,
    is_ours: Callable[[Sequence[Path]], bool],
    *,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> None:
    """Raises RequestError unless a job may fill a folder: one that is new or empty.

    `is_ours`: whether a folder's content is what such a job writes; that may be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file, not a folder")
    content = _content(folder) if folder.exists() else []
    if not content:
        _check_writable(folder)
        return
    if not overwrite:
        raise RequestError(f"{folder} {EXISTS}")
    for source in inputs:
        if source.resolve().is_relative_to(folder.resolve()):
            raise RequestError(f"the output would replace the input {source}")
    if not is_ours(content):
        raise RequestError(f"{folder} holds what no such job wrote, and is not overwritten")
    _check_writable(folder)


def check_replaceable(folder: Path) -> None:
    """Raises RequestError for a folder that cannot be renamed: the current one, a mount point."""
    if folder.exists() and (folder.is_mount() or folder.resolve() == Path.cwd()):
        raise RequestError(f"{folder} cannot be replaced: name a folder below it")


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder`, for files that take the place of all that is in it.

    They do so when the block ends; where it raises, the folder is left as it was. What others put
    there meanwhile stays. Unlike renaming the folder itself, this works for one that is mounted, as
    Azure ML's outputs are.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    replaced = _content(folder)
    begun = Path(mkdtemp(dir=folder, prefix=_BEGUN))
    try:
        yield begun
        for old in replaced:
            old.unlink(missing_ok=True)
        for file in begun.iterdir():
            file.rename(folder / file.name)
        is_new = False
    finally:
        shutil.rmtree(begun)
        if is_new:
            with suppress(OSError):  # others have put something there
                folder.rmdir()


def put_in_place(
    made: Path,
    folder: Path,
    is_ours: Callable[[Sequence[Path]], bool],
    *,
    overwrite: bool = False,
) -> None:
    """Renames a finished folder to its place. What it replaces is left beside it, as `….old`.

    A job may have taken hours, so that what is in its place is looked at once more, as
    `check_folder` has it. Where the new folder cannot be put there, the old one stays.
    """
    check_folder(folder, is_ours, overwrite=overwrite)
    old = made.with_name(made.name + ".old")
    try:
        if folder.exists():  # empty, or what is overwritten
            folder.rename(old)
        made.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def _content(folder: Path) -> list[Path]:
    """What is in a folder, but for what a killed job left unfinished there."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith(_BEGUN)]


def _check_writable(folder: Path) -> None:
    """Folders that are missing are made; it is the nearest one that exists that counts."""
    nearest = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    if not nearest.is_dir():
        raise RequestError(f"nothing can be written to {folder}: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RequestError(f"nothing can be written to {folder}: {nearest} is read-only for us")
