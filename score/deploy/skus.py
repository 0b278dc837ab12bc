"""The machine sizes of Azure that a CLIP may be deployed on: `components/skus.yml` as values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from score.errors import AzureError

TABLE = Path(__file__).parent.parent.parent / "components" / "skus.yml"


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
    gpu_memory_gib: int  # of one GPU
    avx512: bool  # promised for every machine of this size
    status: str  # available, retiring or retired
    retires: str | None  # date

    @property
    def cores(self) -> float:
        """Whole cores, in case of doubt the fewer."""
        return self.vcpus if self.smt is False else self.vcpus / 2

    @property
    def specification(self) -> str:
        """As Azure's model cards write it: vCPUs, GPUs, memory, disk."""
        return f"{self.vcpus}|{self.gpus}|{self.memory_gib}|{self.temp_disk_gib}"


@cache
def skus() -> Mapping[str, Sku]:
    """Name → size, in the order of the table. Raises AzureError where the table is not here."""
    import yaml  # of the extra `azure`; the command line is wanted without, too

    try:
        table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    except OSError as error:
        raise AzureError(f"the table of sizes is in a clone of the project: {error}") from error
    return {entry["name"]: _sku(entry) for entry in table["skus"]}


def _sku(entry: Mapping[str, object]) -> Sku:
    given = {name: entry[name] for name in Sku.__slots__ if name != "avx512"}
    return Sku(**given, avx512="avx512" in entry["guarantees"])  # type: ignore[arg-type, operator]


def lookup(name: str) -> Sku:
    """A size by its name, in any case, as Azure takes it. Raises AzureError."""
    known = {size.lower(): sku for size, sku in skus().items()}
    found = known.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {known[near[0]].name}?" if near else ""
        raise AzureError(f"no size {name!r} among the {len(known)} of components/skus.yml{hint}")
    return found
