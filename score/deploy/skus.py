"""Azure's machine sizes and the quota that they take, from `skus.yml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from score.errors import AzureError
from score.wording.suggestions import suggestion

TABLE = Path(__file__).with_name("skus.yml")


@dataclass(frozen=True, slots=True)
class Sku:
    """A machine size. Memory and disk in GiB; `gpu` is the model of its `gpus` GPUs, or None."""

    name: str
    vcpus: int
    smt: bool | None  # whether a vCPU is a hardware thread, half a core; None if not documented
    memory_gib: int
    temp_disk_gib: int
    gpu: str | None
    gpus: int
    gpu_memory_gib: int  # of one GPU, or of the fraction of one that the size has
    gpu_shared_by: int  # machines that share each GPU
    avx512: bool  # whether Azure documents it for every machine of this size
    status: str  # available, retiring or retired
    retires: str | None  # date
    family: str  # the quota of vCPUs that it counts against
    reserved: bool  # endpoints reserve 20 % more machines for upgrades
    online: bool  # available for managed online endpoints
    allowed: bool  # one of the 52 sizes that Azure's catalog lists for its CLIP model

    @property
    def cores(self) -> float:
        """Physical cores; half the vCPUs where it is not documented."""
        return self.vcpus if self.smt is False else self.vcpus / 2

    def online_quota(self, instances: int) -> int:
        """vCPUs of quota that so many instances of a real-time deployment take.

        `ceil(1.2 * instances) * vCPUs`, unless the size is exempt from Azure's reserve
        (https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas, virtual machine
        quota allocation for deployment).
        """
        machines = -(-6 * instances // 5) if self.reserved else instances
        return machines * self.vcpus

    def batch_quota(self, instances: int) -> int:
        """vCPUs of quota that so many nodes of a cluster take; there is no reserve."""
        return instances * self.vcpus

    @property
    def specification(self) -> str:
        """As Azure's model cards write it: vCPUs, GPUs, memory, disk."""
        return f"{self.vcpus}|{self.gpus}|{self.memory_gib}|{self.temp_disk_gib}"


@cache
def skus() -> Mapping[str, Sku]:
    """Name → size, in the order of the table: first those that Azure lists for its CLIP model.

    Raises AzureError where the table cannot be read.
    """
    import yaml  # optional (score.extras); the other verbs work without it

    try:
        # In Python, reading the table takes longer than all else that a command does.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        table = yaml.load(TABLE.read_text(encoding="utf-8"), loader)  # noqa: S506 - both are safe
    except OSError as error:
        raise AzureError(f"cannot read the table of machine sizes: {error}") from error
    listed = {"skus": True, "further": False}
    return {
        entry["name"]: _sku(entry, allowed)
        for part, allowed in listed.items()
        for entry in table[part]
    }


def _sku(entry: Mapping[str, Any], allowed: bool) -> Sku:
    derived = {
        "allowed": allowed,
        "avx512": "avx512" in entry["guarantees"],
        "gpu_shared_by": entry.get("gpu_shared_by", 1),
    }
    return Sku(**derived, **{name: entry[name] for name in Sku.__slots__ if name not in derived})


def lookup(name: str) -> Sku:
    """A size by its name, in upper or lower case. Raises AzureError for an unknown one."""
    known = {size.lower(): sku for size, sku in skus().items()}
    sku = known.get(name.lower())
    if sku is None:
        hint = suggestion(name, skus(), "Standard_")  # which all begin with, alike or not
        raise AzureError(
            f"no size {name!r} among the {len(known)} that `score azure plan` lists{hint}"
        )
    return sku
