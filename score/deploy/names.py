"""Names that Azure takes: what resources of a workspace are called, and the rules for that."""

from __future__ import annotations

import re

from score.errors import AzureError

# Of an AML compute (a compute instance's is 24), Microsoft.MachineLearningServices in
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
LONGEST_CLUSTER = 32


def cluster_name(size: str) -> str:
    """The name of the cluster of a size: clip-nc4as-t4-v3 for Standard_NC4as_T4_v3.

    A cluster's size cannot be changed, so each size has its own. Raises AzureError for a size
    that makes no name of a compute.
    """
    short = re.sub(r"(?i)^standard_", "", size).lower().replace("_", "-")
    name = f"clip-{short}"
    if not re.fullmatch(r"clip-[a-z0-9-]*[a-z0-9]", name) or len(name) > LONGEST_CLUSTER:
        raise AzureError(
            f"{size!r} makes no name of a cluster ({name!r}): Azure takes letters, digits and "
            f"dashes, {LONGEST_CLUSTER} at most; give the cluster a name of your own"
        )
    return name
