"""Machine sizes of Azure, and the quota they take: `score/deploy/skus.yml` as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from score.errors import AzureError, meant

TABLE = Path(__file__).with_name("skus.yml")


@dataclass(frozen=True, slots=True)
class Sku:
    """One size. Memory and disk in GiB; `gpu` is the model of its `gpus` GPUs, or None."""

    name: str
    vcpus: int
    smt: bool | None  # a vCPU is a hardware thread, half a core; None where it is not documented
    memory_gib: int
    temp_disk_gib: int
    gpu: str | None
    gpus: int
    gpu_memory_gib: int  # of one GPU, or of the part of one that the size has
    gpu_shared_by: int  # machines that share each GPU
    avx512: bool  # promised for every machine of this size
    status: str  # available, retiring or retired
    retires: str | None  # date
    family: str  # whose quota of vCPUs it takes
    reserved: bool  # endpoints keep a fifth more machines of it for upgrades
    online: bool  # managed online endpoints have it
    allowed: bool  # one of the 52 that Azure's catalog allows its CLIP on

    @property
    def cores(self) -> float:
        """Whole cores, in case of doubt the fewer."""
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
        """vCPUs of quota that so many nodes of a cluster take; nothing is reserved."""
        return instances * self.vcpus

    @property
    def specification(self) -> str:
        """As Azure's model cards write it: vCPUs, GPUs, memory, disk."""
        return f"{self.vcpus}|{self.gpus}|{self.memory_gib}|{self.temp_disk_gib}"


@cache
def skus() -> Mapping[str, Sku]:
    """Name → size, those that Azure allows its CLIP on first, each in the order of the table.

    Raises AzureError where the table is not here.
    """
    import yaml  # of the extra `azure`; the command line is wanted without, too

    try:
        table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    except OSError as error:
        raise AzureError(f"the table of sizes is in a clone of the project: {error}") from error
    listed = {"skus": True, "further": False}
    return {
        entry["name"]: _sku(entry, allowed)
        for part, allowed in listed.items()
        for entry in table[part]
    }


def _sku(entry: Mapping[str, Any], allowed: bool) -> Sku:
    made = {
        "allowed": allowed,
        "avx512": "avx512" in entry["guarantees"],
        "gpu_shared_by": entry.get("gpu_shared_by", 1),
    }
    return Sku(**made, **{name: entry[name] for name in Sku.__slots__ if name not in made})


def lookup(name: str) -> Sku:
    """A size by its name, in any case, as Azure takes it. Raises AzureError."""
    known = {size.lower(): sku for size, sku in skus().items()}
    found = known.get(name.lower())
    if found is None:
        hint = meant(name, skus())
        raise AzureError(f"no size {name!r} among the {len(known)} of score/deploy/skus.yml{hint}")
    return found
