"""Pipelines behind batch endpoints: what an endpoint passes to one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml

from score.deploy.rules.documents import Document
from score.deploy.values import mapping

# "Data inputs" and "literal inputs" are all that a pipeline component deployment takes, and tables
# (mltable) are not supported; models neither: azure-ai-ml looks every path up among data assets.
# https://learn.microsoft.com/azure/machine-learning/how-to-access-data-batch-endpoints-jobs
_DATA = ("uri_file", "uri_folder")
_LITERALS = ("string", "boolean", "number", "float", "integer")


def problems(document: Document) -> Iterator[str]:
    """A sentence for each port that a batch endpoint cannot pass to a deployment's pipeline.

    Components that lie elsewhere are passed over, and so are other documents.
    """
    file = document.here / str(document.content.get("component"))
    if document.kind != "pipelineComponentBatchDeployment" or not file.is_file():
        return
    component = yaml.safe_load(file.read_text(encoding="utf-8"))
    for side, allowed in (("inputs", (*_DATA, *_LITERALS)), ("outputs", _DATA)):
        for name, port in mapping(mapping(component).get(side)).items():
            given = port.get("type") if isinstance(port, Mapping) else None
            if given not in allowed:
                yield (
                    f"component: {file.name}: {side}.{name} is a {given}, and a batch endpoint "
                    f"passes {', '.join(allowed)} only; name models in the step that uses them"
                )
