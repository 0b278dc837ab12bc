"""What the reference pages describe: the only module here that imports `score`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import score
from score import __version__ as VERSION
from score import errors, settings
from score.__main__ import main as score_main
from score.checkpoints import random_checkpoint
from score.package import default_model
from score.training import __main__ as training

__all__ = ["COMMANDS", "NAMES", "VERSION", "errors", "resolved", "settings"]

_MODULES = (random_checkpoint, default_model, training)  # run by `python -m`

COMMANDS: dict[str, Callable[[], Any]] = {
    "score": score_main,
    **{
        f"python -m {module.__name__.removesuffix('.__main__')}": module.main for module in _MODULES
    },
}
"""Every command line, and the function that parses it."""

NAMES = (*score.__all__, "ModelError", "RequestError", "RowError")
"""The public names, in the order of their page."""


def resolved(name: str) -> Any:
    """The object with a public name."""
    return getattr(score, name, None) or getattr(errors, name)
