"""`MLmodel`, the file that makes a package an MLflow model: the metadata in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score.errors import ModelError
from score.folder.small_files import read_text

_FILE = "MLmodel"
_LARGEST = 2**18  # bytes; ours have some thousands, and PyYAML reads 100,000 in a second
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
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
    except ModelError:
        raise
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
    except (ImportError, ModelError, *_UNUSABLE):
        pass
    return ""


def _read(package: Path) -> Any:
    """The content of `MLmodel`. Raises OSError, ValueError, ImportError, ModelError.

    References to other parts of the file (`*name`) are refused: a few of them, one within the
    other, make gigabytes of some hundred bytes.
    """
    import yaml  # of the extras `mlflow` and `plan`

    text = read_text(package / _FILE, _LARGEST)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it has references (`*name`), which no MLmodel needs")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
