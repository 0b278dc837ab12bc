"""Names of endpoints, deployments, computes, components and assets."""

from __future__ import annotations

from collections.abc import Iterator

from score.deploy.names import fault
from score.deploy.rules.documents import FAMILIES, Document

_COMPUTES = {"amlCompute": "cluster", "computeInstance": "compute instance"}
_KUBERNETES_BOTH = 62  # characters of the endpoint's and the deployment's name, together


def problems(document: Document) -> Iterator[str]:
    """Names that Azure does not accept."""
    content = document.content
    if "name" in content:
        what = _COMPUTES.get(document.kind, FAMILIES[document.kind].rpartition(" ")[2])
        yield from _rule("name", content["name"], what)
    if "endpoint_name" in content:
        yield from _rule("endpoint_name", content["endpoint_name"], "endpoint")
    if document.kind == "kubernetesOnlineDeployment":
        length = len(document.name) + len(str(content.get("endpoint_name", "")))
        if length > _KUBERNETES_BOTH:
            yield (
                f"name: it and the endpoint's have {length} letters, and "
                f"{_KUBERNETES_BOTH} are the most on Kubernetes"
            )


def _rule(where: str, name: object, what: str) -> Iterator[str]:
    if problem := fault(what, str(name)):
        yield f"{where}: {name!r} {problem}"
