"""The files that a name stands for: one file, the parquet files below a folder, or a pattern."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from score.errors import RequestError
from score.storage.atomic import is_temporary

_ENDING = ".parquet"


def parquet_files(names: Sequence[str | Path]) -> list[Path]:
    """Each file once, in the order of the names; of a folder or pattern in the order of the paths.

    A folder stands for the `.parquet` files below it, hidden ones and unfinished ones left out; a
    name with `*`, `?` or `[` that is no file or folder itself for the files that match it. Raises
    FileNotFoundError, and RequestError for a folder or pattern without such a file.
    """
    files: dict[Path, None] = {}
    for name in names:
        files.update(dict.fromkeys(_files(Path(name))))
    if not files:
        raise RequestError("no file to index was named")
    return list(files)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in sorted(path.rglob(f"*{_ENDING}")) if _is_shard(file, path)]
        if not files:
            raise RequestError(f"no {_ENDING} file below {path}")
        return files
    if not path.exists() and glob.has_magic(str(path)):
        files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
        files = [file for file in files if file.is_file()]
        if not files:
            raise RequestError(f"no file matches {path}")
        return files
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    return [path]


def _is_shard(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    return file.is_file() and not any(part.startswith(".") or is_temporary(part) for part in parts)
