"""MLflow models: whether the folder that is uploaded holds one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from score.deploy.rules.documents import Document
from score.deploy.rules.parts import models, parts
from score.deploy.rules.references import local
from score.deploy.values import mapping
from score.type_aliases import Json


def problems(document: Document) -> Iterator[str]:
    """Local folders that are declared as MLflow models, but hold no MLmodel file."""
    for where, model in models(document):
        yield from _folder(f"{where}path", model, document)
    for where, part in parts(document) if document.family == "job" else ():
        for port, value in mapping(part.get("inputs")).items():
            yield from _folder(f"{where}inputs.{port}.path", mapping(value), document)


def _folder(where: str, model: Json, document: Document) -> Iterator[str]:
    path = model.get("path")
    if model.get("type") != "mlflow_model" or not isinstance(path, str) or not local(path):
        return
    folder = document.here / path
    if os.path.exists(folder) and not os.path.isfile(folder / "MLmodel"):
        yield f"{where}: there is no MLmodel in {path}, and the type is mlflow_model"
