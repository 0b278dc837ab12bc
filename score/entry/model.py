"""The model of an entry script and its settings, both from environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from score.core.embedder import Embedder
from score.folder.model_folder import EMBEDDED
from score.hardware import garbage
from score.settings import Settings


def model_folder(environ: Mapping[str, str]) -> str | Path:
    """Where Azure mounts the model, `AZUREML_MODEL_DIR`; without it, the embedded model."""
    return environ.get("AZUREML_MODEL_DIR") or EMBEDDED


def load(environ: Mapping[str, str], folder: str | Path | None = None) -> Embedder:
    """Loads the model in `folder` (default: `model_folder`) with the environment's settings.

    Raises ModelError, SettingError.
    """
    embedder = Embedder.load(folder or model_folder(environ), Settings.from_env(environ))
    garbage.leave_out_what_is_loaded()
    return embedder
