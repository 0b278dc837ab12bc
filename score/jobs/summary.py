"""How a job went: how many rows, how many failed by which error, and how fast."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from score.errors import BlockedHost


@dataclass
class Summary:
    """How a job went.

    position: how far the input has been read, in the unit of `Lines.size`. failed: error code →
    rows.
    """

    rows: int = 0
    position: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def errors(self) -> int:
        """Rows that failed."""
        return self.failed.total()

    @property
    def good(self) -> int:
        """Rows that did not fail."""
        return self.rows - self.errors

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def hint(self) -> str:
        """A sentence on the setting that would have avoided the errors; empty where none would."""
        return blocked_hint(self.failed, self.good)

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count:,}" for code, count in self.failed.most_common())
        return (
            f"{self.rows:,} rows: {self.good:,} good, {self.errors:,} failed"
            + (f" ({codes})" if codes else "")
            + f"; {self.seconds:.1f} s, {self.rate:.1f} rows/s"
            + (f"\n{self.hint}" if self.hint else "")
        )


def blocked_hint(failed: Counter[str], good: int) -> str:
    """A sentence for a job in which all rows failed and hosts were blocked; else empty."""
    if good or not failed[BlockedHost.code]:
        return ""
    return (
        "the images are on private addresses, from which nothing is fetched unless they are "
        "named: --allow-hosts NAME|ADDRESS|RANGE (SCORE_ALLOW_HOSTS)"
    )
