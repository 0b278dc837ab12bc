"""Names that Azure takes: what resources of a workspace are called, and the rules for that."""

from __future__ import annotations

import re

from score.errors import AzureError

# Azure's pages differ on an AML compute: 32 characters by
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules, and 24 by
# https://learn.microsoft.com/azure/machine-learning/how-to-create-attach-compute-cluster, where the
# rule about dashes is, too. Our own names keep to the shorter, a user's may have the longer.
LONGEST_CLUSTER = 24
_LONGEST = 32

DEDICATED, LOW_PRIORITY = TIERS = ("dedicated", "low_priority")
"""Of a cluster, as Azure spells them."""

_LOW = "-lp"


def cluster_name(size: str, tier: str = DEDICATED) -> str:
    """The name of the cluster of a size: clip-nc4as-t4-v3 for Standard_NC4as_T4_v3.

    A cluster's size and tier cannot be changed, so each has its own. Raises AzureError for a size
    that makes no name of a compute.
    """
    short = re.sub(r"(?i)^standard_", "", size).lower().replace("_", "-")
    name = f"clip-{short}{_LOW if tier == LOW_PRIORITY else ''}"
    if fault := _fault(name, LONGEST_CLUSTER):
        raise AzureError(
            f"{size!r} makes no name of a cluster ({name!r}): {fault}; give it one of your own"
        )
    return name


def checked(name: str) -> str:
    """A name for a cluster, if Azure takes it. Raises AzureError."""
    if fault := _fault(name, _LONGEST):
        raise AzureError(f"{name!r} is no name of a cluster: {fault}")
    return name


def _fault(name: str, longest: int) -> str | None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]", name):
        return "Azure takes letters, digits and dashes, a letter first and no dash last"
    if re.search(r"-[^A-Za-z]*$", name):
        return "Azure wants a letter somewhere after the last dash"
    if not 3 <= len(name) <= longest:
        return f"it is of 3 to {longest} characters"
    return None
