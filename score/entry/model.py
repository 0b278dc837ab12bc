"""The model that an entry script answers with, and its settings: both from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from score.core.embedder import Embedder
from score.folder.model_folder import EMBEDDED
from score.settings import Settings


def mounted(environ: Mapping[str, str]) -> str | Path:
    """The folder that Azure mounted at `AZUREML_MODEL_DIR`, else the embedded model's."""
    return environ.get("AZUREML_MODEL_DIR") or EMBEDDED


def load(environ: Mapping[str, str], folder: str | Path | None = None) -> Embedder:
    """The model in `folder`, by default in `mounted`, with the settings of the environment.

    Raises ModelError, SettingError.
    """
    return Embedder.load(folder or mounted(environ), Settings.from_env(environ))
