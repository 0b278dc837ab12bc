"""How far a job is, read from its folder while another process, or none, is working on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from score.fetch.host_times import HostTime, longest, merged
from score.job_folder import ledger
from score.job_folder.folder import holder
from score.job_folder.ledger import Entry
from score.job_folder.manifest import Manifest
from score.type_aliases import Json
from score.wording.durations import duration

_RECENT = 20  # shards whose rate counts, or a quarter of all: several processes end some at once
_SHOWN = 10  # hosts


@dataclass(frozen=True, slots=True)
class Status:
    """How far a job is.

    holder: the process that works on it, in words; empty for none. rows: that are done. total: of
    the input; None while it is not known. share: of the input that is done, from 0 to 1. rate: rows
    a second of the latest shards. failed, hosts, statuses, retryable: as in the ledger. slowest:
    the hosts that the job has waited for longest, the first one most.
    """

    model: str
    holder: str
    rows: int
    total: int | None
    share: float
    rate: float
    shards: int
    retryable: int
    failed: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest: Mapping[str, HostTime] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Status:
        """Raises RequestError for a folder that holds no job, or a damaged one; OSError."""
        manifest = Manifest.read(folder)
        entries = {entry.first: entry for entry in ledger.read(folder)}
        return cls.given(manifest, list(ledger.in_order(entries)), holder(folder))

    @classmethod
    def given(cls, manifest: Manifest, done: Sequence[Entry], holder: str) -> Status:
        """By what is in the folder. done: its entries, in order."""
        failed, hosts, statuses = Counter[str](), Counter[str](), Counter[str]()
        for entry in done:
            failed.update(entry.failed)
            hosts.update(entry.hosts)
            statuses.update(entry.statuses)
        recent = done[-max(_RECENT, len(done) // 4) :]
        seconds = sum(entry.seconds for entry in recent)
        rows = sum(entry.rows for entry in done)
        is_complete = manifest.rows is not None and rows >= manifest.rows
        # Rows that are missing between others are as long as these.
        position = done[-1].position * rows / done[-1].end if done else 0
        return cls(
            model=manifest.identity.model,
            holder=holder,
            rows=rows,
            total=manifest.rows,
            share=1.0
            if is_complete
            else min(position / manifest.size, 1.0)
            if manifest.size
            else 0,
            rate=sum(entry.rows for entry in recent) / seconds if seconds else 0.0,
            shards=len(done),
            retryable=sum(entry.retryable for entry in done),
            failed=failed,
            hosts=hosts,
            statuses=statuses,
            slowest=longest(merged(*(entry.slowest for entry in done)), _SHOWN),
        )

    @property
    def is_complete(self) -> bool:
        """Whether every row of the input is done."""
        return self.total is not None and self.rows >= self.total

    @property
    def state(self) -> str:
        """`complete`, `running` or `stopped`."""
        if self.holder:
            return "running"
        return "complete" if self.is_complete else "stopped"

    @property
    def seconds_left(self) -> float | None:
        """At the rate of the latest shards; None where that is not known."""
        if self.is_complete:
            return 0.0
        if not self.rate or not self.share:
            return None
        total = self.total or self.rows / self.share
        return max(total - self.rows, 0) / self.rate

    def json(self) -> Json:
        """As JSON."""
        return {
            "state": self.state,
            "model": self.model,
            "holder": self.holder,
            "rows": self.rows,
            "total": self.total,
            "share": round(self.share, 6),
            "rows_per_second": round(self.rate, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "shards": self.shards,
            "failed": dict(self.failed.most_common()),
            "retryable": self.retryable,
            "hosts": dict(self.hosts.most_common()),
            "statuses": dict(self.statuses.most_common()),
            "slowest": {host: time._asdict() for host, time in self.slowest.items()},
        }

    def __str__(self) -> str:
        lines = [f"{self.state}{f' ({self.holder})' if self.holder else ''}: {self._progress()}"]
        if errors := self.failed.total():
            lines.append(f"{errors:,} rows failed ({errors / self.rows:.1%}):")
            lines += [f"  {code:<24}{count:>12,}" for code, count in self.failed.most_common()]
        if self.statuses:
            lines.append("of those, by the answer of the image's server:")
            lines += [f"  HTTP {status:<19}{n:>12,}" for status, n in self.statuses.most_common()]
        if self.hosts:
            lines.append("hosts whose images failed:")
            most = self.hosts.most_common()
            lines += [f"  {host:<40.80}{count:>12,}" for host, count in most[:_SHOWN]]
            if len(most) > _SHOWN:
                lines.append(f"  and {len(most) - _SHOWN:,} more (--json has them)")
        if self.retryable:
            lines.append(f"{self.retryable:,} of them may succeed another time: --retry-failed")
        return "\n".join(lines)

    @property
    def _files(self) -> str:
        return f"{self.shards:,} file{'s' * (self.shards != 1)}"

    def _progress(self) -> str:
        if self.is_complete:
            return f"all {self.rows:,} rows in {self._files}"
        done = f"{self.rows:,} rows in {self._files}, {self.share:.1%} of the input"
        if self.rate:
            done += f"; {self.rate:,.1f} rows/s"
        if self.seconds_left is not None:
            done += f", about {duration(self.seconds_left)} left at that rate"
        return done
