"""Models by the names that MLflow gives them: `models:/clip/1`, `models:/clip@champion`, `runs:/…`.

Knows MLflow's names and fetches what they stand for; knows nothing of what a model is.
"""

from __future__ import annotations

import atexit
import os
import shutil
from functools import cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from score.errors import ModelError
from score.extras import missing

_DOWNLOADS = "clip-endpoints-download-"  # what the folders' names begin with
_SCHEMES = ("models:", "runs:")


def is_uri(model: str | Path) -> bool:
    """Whether a model is named as MLflow names it, not by its folder."""
    return str(model).startswith(_SCHEMES)


@cache
def download(uri: str) -> Path:
    """A copy of a registered or logged model in a folder of its own, removed when the process ends.

    Where MLflow's server is, `MLFLOW_TRACKING_URI` says. Raises ModelError.
    """
    try:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise ModelError(
            f"{uri} is a name of MLflow's, and MLflow cannot be imported: {missing(error)}"
        ) from error
    folder = _folder()
    try:
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        told = getattr(error, "message", str(error))
        if uri.startswith("models:/") and not set(uri.removeprefix("models:/")) & set("/@"):
            told = f"{told}; a registered model has a version or an alias: {uri}/1, {uri}@NAME"
        raise ModelError(
            f"MLflow does not find {uri}: {told} (MLFLOW_TRACKING_URI says where to look)"
        ) from error


def _folder() -> Path:
    """A temporary folder, removed when the process ends.

    One that is killed cannot do that. So a folder is locked while its process lives, and the next
    process removes those that nobody has locked.
    """
    for old in Path(gettempdir()).glob(f"{_DOWNLOADS}*"):
        lock = _lock(old)
        if lock is not None:
            shutil.rmtree(old, ignore_errors=True)
            os.close(lock)
    new = Path(mkdtemp(prefix="clip-endpoints-"))
    _lock(new)
    # Renamed when it is locked, so that no other process takes it for an old one.
    folder = new.rename(new.with_name(_DOWNLOADS + new.name.removeprefix("clip-endpoints-")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _lock(folder: Path) -> int | None:
    """The descriptor by which a folder is locked; None where it cannot be, or another has it."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
