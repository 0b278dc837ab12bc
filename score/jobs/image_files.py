"""The image files below a folder, in the order of their paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from score.errors import FetchFailed
from score.images.formats import ENDINGS


def image_files(root: Path) -> Iterator[str]:
    """Paths below `root`, relative to it, of the files whose ending is an image's.

    Hidden files and folders are skipped, and linked folders are not entered. Only the names in the
    folders on the way to the current file are in memory. Raises OSError.
    """
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
    """Whether it is a file, or a link other than to a folder: a broken link is reported later."""
    # The functions of os.path treat a link to itself as broken; the entry's methods raise.
    return os.path.isfile(entry) or (entry.is_symlink() and not os.path.isdir(entry))


def image_cell(root: Path, path: str) -> object:
    """The cell for a path of `image_files`: an error for a link that leads out of `root`."""
    if (root / path).is_symlink():
        if not os.path.exists(root / path):
            return FetchFailed("is a link that leads nowhere")
        if not (root / path).resolve().is_relative_to(root):
            return FetchFailed("is a link that leads out of the folder")
    return f"./{path}"  # a path even where the name begins with `data:`
