"""Endpoints: authentication, identity, and the deployments that get their traffic.

Sources: learn.microsoft.com/azure/machine-learning/reference-yaml-endpoint-online and -batch;
how-to-safely-rollout-online-endpoints, "Test the deployment with mirrored traffic".
"""

from __future__ import annotations

from collections.abc import Iterator

from score.deploy.rules.documents import BATCH_DEPLOYMENT, DEPLOYMENT, Document, Known
from score.deploy.values import at, mapping, whole
from score.errors import AzureError
from score.type_aliases import Json
from score.wording.suggestions import suggestion

_MODES = {
    "managedOnlineEndpoint": ("key", "aml_token", "aad_token"),
    "kubernetesOnlineEndpoint": ("key", "aml_token", "aad_token"),
    "batchEndpoint": ("aad_token",),
}
_MOST_MIRRORED = 50  # per cent


def problems(document: Document, known: Known) -> Iterator[str]:
    """What is wrong with an endpoint; nothing for other documents."""
    if document.kind not in _MODES:
        return
    content = document.content
    mode = content.get("auth_mode")
    if mode is not None and str(mode).lower() not in _MODES[document.kind]:
        yield f"auth_mode: must be one of {', '.join(_MODES[document.kind])}, not {mode!r}"
    compute = str(content.get("compute")).removeprefix("azureml:")
    if known.find("compute", compute):
        yield f"compute: {compute!r} is no Kubernetes, and managed endpoints have no compute"
    yield from _identity(mapping(content.get("identity")))
    live, mirrored = mapping(content.get("traffic")), mapping(content.get("mirror_traffic"))
    yield from _traffic(live)
    yield from _mirror(document, live, mirrored)
    named: list[tuple[str, object]] = [("traffic", name) for name in live]
    named += [("mirror_traffic", name) for name in mirrored]
    family = DEPLOYMENT
    if document.kind == "batchEndpoint":
        family = BATCH_DEPLOYMENT
        default = at(content, "defaults.deployment_name")
        named = [("defaults.deployment_name", default)] if default is not None else []
    yield from _deployments(document, known, family, named)


def _identity(identity: Json) -> Iterator[str]:
    if identity.get("type") == "user_assigned" and not identity.get("user_assigned_identities"):
        yield "identity.user_assigned_identities: is missing, and identity.type is user_assigned"


def _shares(where: str, shares: Json, most: int) -> Iterator[str]:
    """What is wrong with the deployments' shares of the traffic, in per cent."""
    for name, share in shares.items():
        try:
            whole(f"{where}.{name}", share, 0, most)
        except AzureError as error:
            yield str(error)


def _traffic(live: Json) -> Iterator[str]:
    wrong = list(_shares("traffic", live, 100))
    yield from wrong
    total = 0 if wrong else sum(int(str(share)) for share in live.values())
    if total not in (0, 100):
        yield f"traffic: {total} in total, and it must be 0 or 100"


def _mirror(document: Document, live: Json, mirrored: Json) -> Iterator[str]:
    if mirrored and document.kind == "kubernetesOnlineEndpoint":
        yield "mirror_traffic: Kubernetes endpoints do not mirror"
    if len(mirrored) > 1:
        yield f"mirror_traffic: one deployment may get a copy, not {len(mirrored)}"
    yield from _shares("mirror_traffic", mirrored, _MOST_MIRRORED)
    for name, share in mirrored.items():
        if share and live.get(name):
            yield f"mirror_traffic.{name}: it has a share of the traffic, and gets one or the other"


def _deployments(
    document: Document, known: Known, family: str, named: list[tuple[str, object]]
) -> Iterator[str]:
    """Whether the named deployments exist, if any deployment of this endpoint is in the folders."""
    here = [
        one.name
        for one in known.of(family)
        if str(one.content.get("endpoint_name")) == document.name
    ]
    for where, name in named if here else ():
        if str(name) not in here:
            hint = suggestion(str(name), here)
            yield f"{where}: {document.name} has no deployment {name!r}{hint}"
