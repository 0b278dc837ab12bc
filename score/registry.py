"""Models by the names that MLflow gives them: `models:/clip/1`, `models:/clip@champion`, `runs:/…`.

Knows MLflow's names and fetches what they stand for; knows nothing of what a model is.
"""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from score.errors import ModelError
from score.extras import missing

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
    folder = mkdtemp(prefix="clip-endpoints-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        return Path(download_artifacts(artifact_uri=uri, dst_path=folder))
    except (MlflowException, OSError) as error:
        told = getattr(error, "message", str(error))
        raise ModelError(
            f"MLflow does not find {uri}: {told} (MLFLOW_TRACKING_URI says where to look)"
        ) from error
