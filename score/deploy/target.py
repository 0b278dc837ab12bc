"""What a deployment runs on: a machine size, and the kind and cluster that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from score.deploy.names import DEDICATED, TIERS, cluster_name
from score.deploy.skus import Sku, lookup
from score.errors import AzureError

Kind = Literal["cpu", "gpu"]

# The default sizes.
SMALL: Mapping[str, str] = {"cpu": "Standard_D4as_v4", "gpu": "Standard_NC4as_T4_v3"}


@dataclass(frozen=True, slots=True)
class Target:
    """A size, as Azure spells it, and the kind of environment that it needs.

    cluster: the name of the batch cluster of this size and tier, which cannot be changed once the
    cluster exists.
    """

    size: str
    kind: Kind
    cluster: str


def kind_of(sku: Sku) -> Kind:
    """The kind of environment that a size needs: `gpu` has CUDA."""
    return "gpu" if sku.gpus else "cpu"


def target(kind: str | None = None, size: str | None = None, tier: str | None = None) -> Target:
    """The target of a size; by default the small size of a kind, and the kind cpu.

    `tier`: of a batch cluster, dedicated or low_priority. Raises AzureError for an unknown size,
    kind or tier, and for a size that is not of the kind.
    """
    if kind not in (None, *SMALL):
        raise AzureError(f"{kind!r} is neither cpu nor gpu")
    sku = lookup(size or SMALL[kind or "cpu"])
    actual = kind_of(sku)
    if kind and kind != actual:
        other = "has a GPU" if sku.gpus else "has no GPU"
        raise AzureError(
            f"{sku.name} {other}, and {kind} was asked for: leave out {kind}, or name another size"
        )
    return Target(sku.name, actual, cluster(sku.name, tier))


def cluster(size: str, tier: str | None = None) -> str:
    """The name of the batch cluster of a size and tier. Raises AzureError."""
    if tier not in (None, *TIERS):
        raise AzureError(f"tier {tier!r}: a cluster is {' or '.join(TIERS)}")
    return cluster_name(size, tier or DEDICATED)
