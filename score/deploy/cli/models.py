"""`--model` of `score azure plan` and `render`: the embedded model, a folder or a catalog name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from score.console.commands import Parser
from score.errors import AzureError
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.wording.suggestions import suggestion

if TYPE_CHECKING:
    from score.folder.architecture import Architecture

EVERY = "all"
_EMBEDDED_NAME = "the embedded model"


def add_model(parser: Parser) -> None:
    """Adds the flag."""
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a name of the catalog, a folder, or all; default: the embedded model",
    )


def architectures(model: str | None) -> Mapping[str, Architecture]:
    """Name → architecture of the models that the flag names; None is the embedded model.

    Raises AzureError for what is neither a folder nor in the catalog.
    """
    from score.checkpoints.catalog import CATALOG

    if model is None:
        return {_EMBEDDED_NAME: ModelFolder.open(EMBEDDED).architecture}
    if model == EVERY:
        return {name: entry.architecture for name, entry in CATALOG.items()}
    if model in CATALOG:
        return {model: CATALOG[model].architecture}
    if os.path.isdir(model):
        return {Path(model).resolve().name: ModelFolder.open(model).architecture}
    raise AzureError(
        f"{model!r} is neither a folder nor in the catalog: {', '.join(CATALOG)}"
        + suggestion(model, CATALOG)
    )


def one_architecture(model: str | None) -> tuple[str, Architecture]:
    """Name and architecture of a single model. Raises AzureError, for `all` too."""
    if model == EVERY:
        raise AzureError("YAML is for one model: --model")
    (pair,) = architectures(model).items()
    return pair
