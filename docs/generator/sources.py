"""Where in the package the reference pages come from: all imports of it stand here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from score import __version__ as VERSION
from score import errors, settings
from score.__main__ import main as score_main
from score.checkpoints import random_checkpoint
from score.package import default_model
from score.training import train

__all__ = ["COMMANDS", "NAMES", "VERSION", "errors", "resolved", "settings"]

_MODULES = (random_checkpoint, default_model, train)  # that run by `python -m`

COMMANDS: dict[str, Callable[[], Any]] = {
    "score": score_main,
    **{f"python -m {module.__name__}": module.main for module in _MODULES},
}
"""Every command line, and the function that parses it."""

PUBLIC = {
    "Embedder": "score.core.embedder",
    "Row": "score.contract.rows",
    "Record": "score.contract.rows",
    "Labels": "score.contract.labels",
    "Params": "score.contract.params",
    "Settings": "score.settings",
    "ModelFolder": "score.folder.model_folder",
    **dict.fromkeys(("ScoreError", "ModelError", "RequestError", "RowError"), "score.errors"),
}
NAMES = tuple(PUBLIC)
"""The public names, in the order of their page."""


def resolved(name: str) -> Any:
    """What a public name stands for."""
    return getattr(import_module(PUBLIC[name]), name)
