"""Names of a workspace's resources, and Azure's rules for them."""

from __future__ import annotations

import re

from score.errors import AzureError

# Azure's pages differ on an AML compute: 32 characters by
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules, and 24 by
# https://learn.microsoft.com/azure/machine-learning/how-to-create-attach-compute-cluster, which
# also has the rule about dashes. Names made here keep to the shorter, a user's to the longer.
LONGEST_CLUSTER = 24
_COMPUTES = {"cluster": 32, "compute instance": 24}

# Endpoints and deployments: learn.microsoft.com/azure/machine-learning/how-to-manage-quotas, "Azure
# Machine Learning online endpoints and batch endpoints". Components: reference-yaml-component-
# command. Assets: the characters that an azureml: reference may have.
_ENDPOINT = (
    re.compile(r"(?=.{3,32}$)[A-Za-z](?:-?[A-Za-z0-9])*"),
    "3 to 32 letters, digits and single dashes, a letter first",
)
_ASSET = (
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"),
    "up to 255 letters, digits, dashes, dots and underscores",
)
_RULES = {
    "endpoint": _ENDPOINT,
    "deployment": _ENDPOINT,
    "component": (
        re.compile(r"[a-z][a-z0-9_]{0,254}"),
        "up to 255 lower-case letters, digits and underscores, a letter first",
    ),
    "model": _ASSET,
    "environment": _ASSET,
    "data": _ASSET,
}

DEDICATED, LOW_PRIORITY = TIERS = ("dedicated", "low_priority")
"""The tiers of a cluster, as Azure spells them."""

_LOW = "-lp"


# A key vault secret as an environment variable refers to it; the version is required:
# https://learn.microsoft.com/azure/machine-learning/how-to-deploy-online-endpoint-with-secret-injection
SECRET = re.compile(r"https://[\w-]+\.vault\.[\w.]+/secrets/[\w-]+/\w+")
SECRETS_FORM = "https://VAULT.vault.azure.net/secrets/NAME/VERSION (the version is needed)"


def cluster_name(size: str, tier: str = DEDICATED) -> str:
    """The name of the cluster of a size: clip-nc4as-t4-v3 for Standard_NC4as_T4_v3.

    A cluster's size and tier cannot be changed, so each has a cluster of its own. Raises AzureError
    for a size from which no valid name can be made.
    """
    short = re.sub(r"(?i)^standard_", "", size).lower().replace("_", "-")
    name = f"clip-{short}{_LOW if tier == LOW_PRIORITY else ''}"
    if problem := _compute_fault(name, LONGEST_CLUSTER):
        raise AzureError(
            f"{size!r} makes no name of a cluster: {name!r} {problem}; give it one of your own"
        )
    return name


def checked(what: str, name: str) -> str:
    """The name of a resource, if it is valid. Raises AzureError."""
    if problem := fault(what, name):
        raise AzureError(f"{name!r} is no name for Azure: that of a {what} {problem}")
    return name


def fault(what: str, name: str) -> str | None:
    """What is wrong with a resource's name, as the rest of a sentence about it; None if nothing.

    `what`: endpoint, deployment, component, model, environment, data, cluster or compute instance;
    other resources may have any name.
    """
    if what in _COMPUTES:
        return _compute_fault(name, _COMPUTES[what])
    pattern, text = _RULES.get(what, (None, ""))
    return f"must be {text}" if pattern and not pattern.fullmatch(name) else None


def _compute_fault(name: str, longest: int) -> str | None:
    if not re.fullmatch(rf"(?=.{{3,{longest}}}$)[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]", name):
        return f"must be 3 to {longest} letters, digits and dashes, a letter first and no dash last"
    if re.search(r"-[^A-Za-z]*$", name):
        return "must have a letter somewhere after its last dash"
    return None
