"""The folders of a simulated job: its input files, a new output folder and the mounted model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from score.errors import AzureError
from score.package.contents import IGNORE, PARTS


def input_files(folder: Path) -> list[Path]:
    """The files that Azure passes to a job over a folder: not hidden ones, nor those in subfolders.

    Raises AzureError where there are none.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    visible = [file.resolve() for file in files if file.is_file() and file.name[0] != "."]
    if not visible:
        raise AzureError(f"{folder} is no folder with files in it")
    return visible


def new_output(folder: Path) -> Path:
    """Creates an output folder, and returns it as an absolute path.

    Azure gives each job a folder of its own. Raises AzureError for a folder with files in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AzureError(f"{folder} is there already: name another output")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextmanager
def mounted(model: Path) -> Iterator[Path]:
    """A folder for AZUREML_MODEL_DIR: the parent of a copy of the model folder, as at Azure.

    Raises AzureError where the model is no folder.
    """
    if not model.is_dir():
        raise AzureError(f"there is no model folder {model}")
    with TemporaryDirectory(prefix="azureml-models-") as folder:
        version = Path(folder) / "clip" / "1"
        version.mkdir(parents=True)
        _copy(model.resolve(), version / model.resolve().name)
        yield version


def _copy(model: Path, target: Path) -> None:
    """Copies what Azure would have uploaded: the parts of a package, or all of another model.

    Folders are real ones, since MLflow refuses paths that symbolic links lead out of.
    """
    parts = [model / name for name in PARTS] if (model / IGNORE).is_file() else model.iterdir()
    target.mkdir()
    for part in parts:
        if part.is_dir():
            shutil.copytree(part, target / part.name, copy_function=_link)
        elif part.is_file():
            _link(str(part), str(target / part.name))


def _link(file: str, target: str) -> None:
    """Makes a hard link, since weights are large; a copy where the two are on different disks."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
