"""How fast a job was, from its start to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from score.job_folder.ledger import Entry

_PARTS = 120  # of a job's time


@dataclass(frozen=True, slots=True)
class Rate:
    """Rows a second in a part of a job's time. begin, end: in seconds of work since it began."""

    begin: float
    end: float
    rows_per_second: float


def rates(entries: Sequence[Entry]) -> list[Rate]:
    """A job's rate in parts of equal length; none where the ledger tells no time.

    Time is that of work, as the shards took it one after the other: a break between two runs does
    not count, and a clock that was set does not matter.
    """
    ends = np.cumsum([0.0, *(entry.seconds for entry in entries)])
    rows = np.cumsum([0, *(entry.rows for entry in entries)])
    if not ends[-1]:
        return []
    edges = np.linspace(0, ends[-1], min(_PARTS, len(entries)) + 1)
    done = np.interp(edges, ends, rows)
    speeds = np.diff(done) / np.diff(edges)
    return [
        Rate(float(begin), float(end), float(speed))
        for begin, end, speed in zip(edges, edges[1:], speeds, strict=False)
    ]
