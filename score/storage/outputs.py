"""Checks where a job may write: one rule for all outputs that exist already.

An output that exists is an error; with `overwrite` it is replaced when the new one is complete. A
folder is replaced only if a job of the same kind wrote it, so that a mistyped name does not delete
other files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from score.errors import RequestError
from score.storage.atomic import is_temporary

EXISTS = "is there already: name another output, or pass --overwrite to replace it"


def check_files(
    files: Iterable[Path], *, overwrite: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Raises RequestError unless each of a job's files may be written.

    `inputs`: the files that the job reads, which no output may replace even with `overwrite`.
    """
    files = list(files)
    check_inputs(files, inputs)
    for file in files:
        if file.is_symlink():
            raise RequestError(f"{file} is a link: name the file that it leads to, or another one")
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
    """Raises RequestError unless a job may write a folder: it must be new or empty.

    `is_ours`: whether a folder's content is the output of such a job, which `overwrite` replaces.
    """
    if folder.is_symlink() and not folder.exists():
        raise RequestError(f"{folder} is a link that leads nowhere")
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
    """Raises RequestError for a folder that cannot be replaced by renaming another to its name: the
    current one, a mount point, a link."""
    if folder.is_symlink():
        raise RequestError(f"{folder} is a link: name the folder that it leads to, or another one")
    if folder.exists() and (folder.is_mount() or folder.resolve() == Path.cwd()):
        raise RequestError(f"{folder} cannot be replaced: name a folder below it")


def is_empty(folder: Path) -> bool:
    """Whether a folder is empty, apart from temporary files of running or killed jobs."""
    return not _content(folder)


def _content(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not is_temporary(entry.name)]


def _check_writable(folder: Path) -> None:
    """Checks the nearest existing parent, in which missing folders will be created."""
    nearest = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    if not nearest.is_dir():
        raise RequestError(f"cannot write to {folder}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RequestError(f"cannot write to {folder}: {nearest} is not writable")
