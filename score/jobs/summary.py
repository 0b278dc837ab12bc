"""How a job went: how many rows, how many failed by which error, and how fast."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from score.contract.rows import Record
from score.errors import BlockedHost


@dataclass
class Summary:
    """How a job went.

    rows: with those of earlier runs of the same job. earlier, earlier_errors: of those alone.
    position: how far the input has been read, in the unit of `Lines.size`. failed: error code →
    rows. seconds: of this run. retried: how often failed rows were tried again; recovered: those
    that succeeded then. waiting: rows of hosts that are down, which are tried again at the job's
    end. stopped: whether the job ended early, since too many rows failed.
    """

    rows: int = 0
    earlier: int = 0
    earlier_errors: int = 0
    position: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    retried: int = 0
    recovered: int = 0
    waiting: int = 0
    stopped: bool = False

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
        """Rows a second, in this run."""
        return (self.rows - self.earlier) / self.seconds if self.seconds else 0.0

    @property
    def hint(self) -> str:
        """A sentence on the setting that would have avoided the errors; empty where none would."""
        return blocked_hint(self.failed, self.good)

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count:,}" for code, count in self.failed.most_common())
        return (
            f"{self.rows:,} rows"
            + (f" ({self.earlier:,} of earlier runs)" if self.earlier else "")
            + f": {self.good:,} good, {self.errors:,} failed"
            + (f" ({codes})" if codes else "")
            + (
                f"; {self.retried:,} further tries of failed rows, {self.recovered:,} of them good"
                if self.retried
                else ""
            )
            + f"; {self.seconds:.1f} s, {self.rate:.1f} rows/s"
            + (f"\n{self.hint}" if self.hint else "")
        )


def blocked_hint(failed: Counter[str], good: int) -> str:
    """A sentence for a job in which all rows failed and hosts were blocked; else empty."""
    if good or not failed[BlockedHost.code]:
        return ""
    return (
        "the images are at addresses that are not public, or at unusual ports, from which nothing "
        "is fetched unless they are named: --allow-hosts NAME|ADDRESS|RANGE (SCORE_ALLOW_HOSTS), "
        "--fetch-ports"
    )


def count(summary: Summary, record: Record, position: int, seconds: float) -> None:
    """Adds a row. position, seconds: up to and with it."""
    summary.rows += 1
    summary.position = max(summary.position, position)
    summary.seconds = seconds
    if record.error:
        summary.failed[record.error.code] += 1


def add_earlier(summary: Summary, rows: int, failed: Counter[str], position: int) -> None:
    """Adds rows of an earlier run."""
    summary.rows += rows
    summary.earlier += rows
    summary.earlier_errors += failed.total()
    summary.failed += failed
    summary.position = max(summary.position, position)


def drop(summary: Summary, rows: int, failed: Counter[str]) -> None:
    """Takes rows of an earlier run away, which are to be embedded again."""
    summary.rows -= rows
    summary.earlier -= rows
    summary.failed -= failed


def is_above(summary: Summary, rate: float | None) -> bool:
    """Whether a larger share of all rows failed. rate: None for never."""
    return rate is not None and summary.errors > rate * summary.rows


def is_above_now(summary: Summary, rate: float | None, least: int) -> bool:
    """The same of this run's rows alone, of which there are some: those before may have failed by
    what is mended since."""
    rows, errors = summary.rows - summary.earlier, summary.errors - summary.earlier_errors
    return rate is not None and rows >= least and errors > rate * rows
