"""Whether a folder's configuration is of a family that is supported.

It is read before anything else of a checkpoint. Imports no torch, so that a model of another family
is refused at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from score.checkpoints import openclip_others
from score.errors import ModelError
from score.folder import unsupported
from score.folder.model_folder import read_json
from score.type_aliases import Json

CONFIG = "config.json"

_CHECKS: Mapping[str, Callable[[Json], None]] = {
    CONFIG: unsupported.check,
    openclip_others.CONFIG: openclip_others.check_config,
}


def check(folder: Path) -> None:
    """Raises ModelError for a folder whose configurations are all of other families.

    A folder without one is not judged, nor is what is no folder.
    """
    if is_preset(folder):
        return
    refusals = []
    for name, check_config in _CHECKS.items():
        if os.path.isfile(folder / name):  # False for a name that is too long, too
            config = read_json(folder / name)
            try:
                check_config(config)
            except ModelError as error:
                refusals.append(ModelError(f"{folder / name}: {error}"))
            else:
                return  # of both, one that is known suffices
    if refusals:
        raise refusals[0]


def is_preset(folder: Path) -> bool:
    """Whether a folder is a preset of KerasHub, of whatever model."""
    try:
        config = read_json(folder / CONFIG)
    except ModelError:
        return False
    return str(config.get("registered_name")).startswith(("keras_hub>", "keras_nlp>"))
