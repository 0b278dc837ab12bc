"""What every part works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.server import servers
from benchmarks.server.clients import Load
from benchmarks.server.servers import Server

LATENCY = 0.05
"""Seconds that the server of images takes."""
IMAGES = 200
"""That it has, no two alike."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """model: what is served. environment: its settings. urls: of images of about 640×480.

    seconds: of each measurement.
    """

    model: Path
    environment: Mapping[str, str]
    load: Load
    urls: Sequence[str]
    seconds: float

    def serving(self, *flags: str, **environment: str) -> AbstractContextManager[Server]:
        """`score serve` with these settings, too."""
        return servers.own(self.model, {**self.environment, **environment}, flags)


@dataclass(frozen=True)
class Report:
    """Lines of a table, all with the same keys; and what must not be, in words."""

    lines: Sequence[Line]
    faults: Sequence[str] = ()

    def table(self) -> str:
        """Markdown."""
        names = list(self.lines[0]) if self.lines else []
        rows = [[_shown(line[name]) for name in names] for line in self.lines]
        text = [_row(names), "|---" * len(names) + "|", *map(_row, rows)]
        return "\n".join([*text, "", *(f"- FAULT: {fault}" for fault in self.faults)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
