"""Inputs and outputs: what a batch endpoint passes to a pipeline, and what a step is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Json = Mapping[str, Any]

# "Data inputs" and "literal inputs" are all that a pipeline component deployment takes, and tables
# (mltable) are not supported; models neither: azure-ai-ml looks every path up among data assets.
# https://learn.microsoft.com/azure/machine-learning/how-to-access-data-batch-endpoints-jobs
_DATA = ("uri_file", "uri_folder")
_LITERALS = ("string", "boolean", "number", "float", "integer")


def behind_endpoint(kind: str, content: Json, here: Path) -> Iterator[str]:
    """A sentence for each port that a batch endpoint cannot pass to a deployment's pipeline.

    `here`: the folder of the deployment's file. Components that lie elsewhere are passed over.
    """
    file = here / str(content.get("component"))
    if kind != "pipelineComponentBatchDeployment" or not file.is_file():
        return
    component = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(component, Mapping):
        return
    for side, allowed in (("inputs", (*_DATA, *_LITERALS)), ("outputs", _DATA)):
        for name, port in (component.get(side) or {}).items():
            given = port.get("type") if isinstance(port, Mapping) else None
            if given not in allowed:
                yield (
                    f"component: {file.name}: {side}.{name} is a {given}, and a batch endpoint "
                    f"passes {', '.join(allowed)} only; name models in the step that uses them"
                )


def asset(where: str, given: Json, wanted: Json) -> Iterator[str]:
    """What is wrong with an input that a step spells out, `{type: …, path: …}`, for a port."""
    if "path" not in given:
        yield f"{where}.path: is missing"
    kind = given.get("type", "uri_folder")  # Azure's default
    if kind != wanted.get("type"):
        yield f"{where}: is a {kind}, and a {wanted.get('type')} is wanted"
