"""`MLmodel`, the file that makes a package an MLflow model: the metadata in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score.errors import ModelError

_FILE = "MLmodel"
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""Raised for a file that cannot be read, is no YAML, or lacks what is looked up."""


def metadata(package: Path) -> Mapping[str, str]:
    """The metadata in a package's `MLmodel`; empty for a folder without that file.

    Raises ModelError for a file that cannot be read or holds no metadata, ImportError without
    PyYAML.
    """
    if not (package / _FILE).is_file():
        return {}
    try:
        return {str(key): str(value) for key, value in _read(package)["metadata"].items()}
    except _UNUSABLE as error:
        raise ModelError(f"cannot read {package / _FILE}: {error}") from error


def model_name(model: Path) -> str:
    """The model's name in the `MLmodel` of its package; empty for a folder outside a package.

    `model`: the folder that `MLmodel` names as `data`. Empty also where PyYAML is not installed.
    """
    try:
        content = _read(model.parent)
        if content["flavors"]["python_function"]["data"] == model.name:
            return str(content["metadata"]["base_model_name"])
    except (ImportError, *_UNUSABLE):
        pass
    return ""


def _read(package: Path) -> Any:
    """The content of `MLmodel`. Raises OSError, ValueError, ImportError."""
    import yaml  # of the extras `mlflow` and `plan`

    try:
        return yaml.safe_load((package / _FILE).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
