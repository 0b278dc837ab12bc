"""Names of endpoints, deployments, computes, components and assets: each kind has its own rule."""

from __future__ import annotations

import re
from collections.abc import Iterator

from score.deploy.rules.documents import FAMILIES, Document

# Endpoints and deployments: learn.microsoft.com/azure/machine-learning/how-to-manage-quotas, "Azure
# Machine Learning online endpoints and batch endpoints". Components: reference-yaml-component-
# command. Computes: learn.microsoft.com/azure/azure-resource-manager/management/resource-name-
# rules.
# Assets: the letters that an azureml: reference may have.
_ENDPOINT = (
    re.compile(r"(?=.{3,32}$)[A-Za-z](?:-?[A-Za-z0-9])*"),
    "3 to 32 letters, digits and single dashes, a letter first",
)
_ASSET = (
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"),
    "up to 255 letters, digits, dashes, dots and underscores",
)
_RULES = {
    "online endpoint": _ENDPOINT,
    "batch endpoint": _ENDPOINT,
    "online deployment": _ENDPOINT,
    "batch deployment": _ENDPOINT,
    "component": (
        re.compile(r"[a-z][a-z0-9_]{0,254}"),
        "up to 255 lower-case letters, digits and underscores, a letter first",
    ),
    "model": _ASSET,
    "environment": _ASSET,
    "data": _ASSET,
}
_COMPUTES = {"amlCompute": 32, "computeInstance": 24}
_KUBERNETES_BOTH = 62  # letters of the endpoint's name and the deployment's, together


def problems(document: Document) -> Iterator[str]:
    """Whether a document's name is one that Azure takes."""
    content = document.content
    if "name" in content:
        yield from _rule("name", content["name"], document.kind)
    if "endpoint_name" in content:
        yield from _rule("endpoint_name", content["endpoint_name"], "batchEndpoint")
    if document.kind == "kubernetesOnlineDeployment":
        length = len(document.name) + len(str(content.get("endpoint_name", "")))
        if length > _KUBERNETES_BOTH:
            yield (
                f"name: it and the endpoint's have {length} letters, and "
                f"{_KUBERNETES_BOTH} are the most on Kubernetes"
            )


def _rule(where: str, name: object, kind: str) -> Iterator[str]:
    if kind in _COMPUTES:
        most = _COMPUTES[kind]
        pattern = re.compile(rf"(?=.{{3,{most}}}$)[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]")
        text = f"3 to {most} letters, digits and dashes, a letter first"
    elif FAMILIES[kind] in _RULES:
        pattern, text = _RULES[FAMILIES[kind]]
    else:
        return
    if not pattern.fullmatch(str(name)):
        yield f"{where}: {name!r} is not {text}"
