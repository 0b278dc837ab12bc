"""Models by MLflow's URIs: `models:/clip/1`, `models:/clip@champion`, `runs:/RUN/model`.

Recognises such a URI and downloads the model; does not look into the model's files.
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
from score.hardware.locks import lock_folder

_DOWNLOADS = "clip-endpoints-download-"  # prefix of the folders' names
_SCHEMES = ("models:", "runs:")


def is_uri(model: str | Path) -> bool:
    """Whether `model` is a URI of MLflow's rather than a folder."""
    return str(model).startswith(_SCHEMES)


@cache
def download(uri: str) -> Path:
    """Downloads a registered or logged model to a temporary folder, removed when the process ends.

    `MLFLOW_TRACKING_URI` is the address of MLflow's server or database. Raises ModelError.
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
        message = getattr(error, "message", str(error))
        if uri.startswith("models:/") and not set(uri.removeprefix("models:/")) & set("/@"):
            message = (
                f"{message}; a registered model has a version or an alias: {uri}/1, {uri}@NAME"
            )
        raise ModelError(
            f"MLflow does not find {uri}: {message} (MLFLOW_TRACKING_URI says where to look)"
        ) from error


def _folder() -> Path:
    """A temporary folder, removed when the process ends.

    A killed process does not remove its folder. So each process holds a lock on its folder, and the
    next process removes the folders without a lock.
    """
    for old in Path(gettempdir()).glob(f"{_DOWNLOADS}*"):
        lock = lock_folder(old)
        if lock is not None:
            shutil.rmtree(old, ignore_errors=True)
            os.close(lock)
    new = Path(mkdtemp(prefix="clip-endpoints-"))
    lock_folder(new)
    # Renamed after it is locked, so that no other process removes it as an old one.
    folder = new.rename(new.with_name(_DOWNLOADS + new.name.removeprefix("clip-endpoints-")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
