"""The part of this machine that a simulated node may use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from score.deploy.skus import Sku

_LIMITS = Path(__file__).resolve().with_name("limits.py")


@dataclass(frozen=True, slots=True)
class Machine:
    """Limits of a node; None means no limit."""

    cores: int | None = None
    memory: int | None = None  # bytes

    @classmethod
    def like(cls, sku: Sku) -> Machine:
        """A machine of this size. This machine's own cores and memory remain the upper bound."""
        return cls(sku.vcpus, sku.memory_gib * 2**30)

    def command(self, processes: int, command: Sequence[str]) -> list[str]:
        """The command with these limits applied, where `processes` of them share the node."""
        if self.cores is None or self.memory is None:
            return list(command)
        limits = [str(self.cores), str(self.memory // processes)]
        return [sys.executable, str(_LIMITS), *limits, *command]
