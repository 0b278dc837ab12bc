"""Copies a package's files alone, without other files in its folder.

MLflow copies a model's whole folder and cannot exclude files. In the root of this repository that
would include the outputs of jobs and Git's history. The embedded model's code is all of `score/` in
a clone, and elsewhere in a wheel: the copy gets the part that `contents.SERVING` lists.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from score.errors import ModelError
from score.folder.model_folder import EMBEDDED, LFS_POINTER, ModelFolder, is_lfs_pointer
from score.package.contents import (
    ALWAYS,
    IGNORE,
    MLMODEL,
    PARTS,
    SCORE,
    allow_list,
    copy_code,
)
from score.storage import atomic
from score.storage.outputs import check_folder, check_replaceable


def is_package(content: Sequence[Path]) -> bool:
    """Whether a folder with this content holds a package and nothing else, as a clone does not."""
    names = {entry.name for entry in content}
    return set(ALWAYS) <= names <= set(PARTS)


def export(model: str | Path, output: Path, *, overwrite: bool = False) -> Path:
    """Copies a package's own files to a new folder; returns that folder.

    `model`: a folder or URI, as in `ModelFolder.open`. `overwrite`: `output` may be an older
    package. Raises ModelError for a checkpoint that is not packaged, RequestError for an `output`
    that may not be written.
    """
    parts = list(_parts(model))
    check = partial(check_folder, output, is_package, overwrite=overwrite)
    check(inputs=parts)
    check_replaceable(output)
    if any(output.resolve().is_relative_to(part.resolve()) for part in parts):
        raise ModelError(f"{output} is inside the model to copy")
    with atomic.folder(output, check) as new:
        for part in parts:
            _copy(part, new / part.name)
        if parts[0].parent.resolve() == EMBEDDED.parent:
            copy_code(SCORE, new / SCORE.name)
            (new / IGNORE).write_text(allow_list(new), encoding="utf-8")
    return output


def _parts(model: str | Path) -> Iterator[Path]:
    """The existing files and folders of a package; for the embedded model without its code."""
    data = ModelFolder.open(model).path
    if not (data.parent / MLMODEL).is_file():
        raise ModelError(f"{model} is a checkpoint, no package of one: run `score package` on it")
    for file in data.glob("*.safetensors"):
        if is_lfs_pointer(file):
            raise ModelError(f"{file} is {LFS_POINTER}")
    own = data.parent.resolve() == EMBEDDED.parent
    names = [name for name in PARTS if not (own and name == SCORE.name)]
    yield from (data.parent / name for name in names if (data.parent / name).exists())


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)
