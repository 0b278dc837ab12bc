"""What a long job loses and repeats when machines are slow or taken away: a simulation.

    python -m benchmarks.job_simulation [--plot docs/job-simulation.svg] [--seeds 3]

Events of many machines that share one job, with the rules of `score/job_folder/`: a machine takes a
file of rows from a queue, embeds it shard by shard, and writes a line into the file's ledger when a
shard is complete. A machine that is taken away without notice loses the shard that is open, and
what it had fetched ahead; another machine goes on by the ledger. At the end every row of every
ledger is counted. Seeded: the same arguments give the same figures.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from score.console import commands

LONGEST = 300.0  # seconds of a shard: score/job_folder/embed.py
AHEAD = 4096  # rows that a stream may have begun beyond those that are written: fuzz/kills.py
HOUR = 3600.0
SEEDS = 3


@dataclass(frozen=True)
class Setting:
    """A job and its machines.

    rows: of the job. files: that it is split into. rate: rows a second of a usual machine. spread:
    of the machines' speeds, as sigma of a lognormal. slow: the share of machines at a quarter of
    their speed. taken_every: mean hours between two times that a machine is taken away; 0 for
    never. notice: whether it is told in time, as by SIGTERM. away: seconds until another one works.
    failing: the share of rows that fail, and are tried again at the end.
    """

    rows: int = 100_000_000
    machines: int = 100
    files: int = 1000
    shard_rows: int = 10_000
    rate: float = 34.1
    spread: float = 0.05
    slow: float = 0.0
    taken_every: float = 0.0
    notice: bool = False
    away: float = 180.0
    failing: float = 0.0


@dataclass
class Outcome:
    """What happened. seconds: until the last row. written: rows of all ledgers, each once. lost:
    rows of none. twice: rows of two. repeated: rows that were embedded again; most: by one removal.
    fetched: images that were downloaded again, at most: those, and what was fetched ahead.
    """

    seconds: float = 0.0
    written: int = 0
    lost: int = 0
    twice: int = 0
    taken: int = 0
    repeated: int = 0
    most: int = 0
    fetched: int = 0


@dataclass
class _File:
    """Rows of the job that one machine embeds at a time. ledger: first row → rows."""

    rows: int
    ledger: dict[int, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Rows from the first on, without a gap, as a machine that goes on finds them."""
        row = 0
        while row in self.ledger:
            row += self.ledger[row]
        return row


@dataclass
class _Machine:
    speed: float
    file: _File | None = None
    first: int = 0  # of the open shard
    began: float = 0.0
    life: int = 0  # events of an earlier life are void


class Simulation:
    """One job."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.dice = setting, random.Random(seed)
        each, more = divmod(setting.rows, setting.files)
        self.all = [_File(each + (number < more)) for number in range(setting.files)]
        self.queue = deque(self.all)
        self.machines = [_Machine(self._speed(n)) for n in range(setting.machines)]
        self.events: list[tuple[float, int, int, str]] = []
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until every row is done."""
        for number in range(len(self.machines)):
            self._starts(0.0, number)
        while self.events:
            now, number, life, kind = heapq.heappop(self.events)
            if kind == "back" or life == self.machines[number].life:
                {"shard": self._ends, "taken": self._taken, "back": self._starts}[kind](now, number)
        self._try_again()
        return self._counted()

    def _speed(self, number: int) -> float:
        speed = self.setting.rate * self.dice.lognormvariate(0, self.setting.spread)
        return speed / 4 if number < self.setting.slow * self.setting.machines else speed

    def _starts(self, now: float, number: int) -> None:
        """A machine that works from now on."""
        if self.setting.taken_every:
            lasts = self.dice.expovariate(1 / (self.setting.taken_every * HOUR))
            self._at(now + lasts, number, "taken")
        self._next(now, number)

    def _next(self, now: float, number: int) -> None:
        """The next shard of a machine, or its next file; without any it has no more to do."""
        machine = self.machines[number]
        if machine.file is None or machine.file.done == machine.file.rows:
            machine.file = self.queue.popleft() if self.queue else None
        if machine.file is None:
            machine.life += 1
            return
        machine.first, machine.began = machine.file.done, now
        self._at(now + self._shard(machine) / machine.speed, number, "shard")

    def _shard(self, machine: _Machine) -> int:
        """Rows of the open shard: it ends after some rows, or some minutes."""
        assert machine.file
        most = min(self.setting.shard_rows, max(1, math.ceil(LONGEST * machine.speed)))
        return min(most, machine.file.rows - machine.first)

    def _ends(self, now: float, number: int) -> None:
        """A shard is complete, and in the ledger."""
        machine = self.machines[number]
        assert machine.file
        self._write(machine.file, machine.first, self._shard(machine))
        self.outcome.seconds = max(self.outcome.seconds, now)
        self._next(now, number)

    def _write(self, file: _File, first: int, rows: int) -> None:
        self.outcome.twice += file.ledger.get(first, 0)
        file.ledger[first] = rows

    def _taken(self, now: float, number: int) -> None:
        """A machine is gone; its file is the next that another one takes."""
        machine = self.machines[number]
        machine.life += 1
        if machine.file is not None:
            done = min(int((now - machine.began) * machine.speed), self._shard(machine))
            left = machine.file.rows - machine.first - done
            self.outcome.fetched += min(AHEAD, left)
            again = 0 if self.setting.notice else done
            if self.setting.notice and done:
                self._write(machine.file, machine.first, done)
            self.outcome.repeated += again
            self.outcome.fetched += again
            self.outcome.most = max(self.outcome.most, again)
            self.outcome.taken += 1
            self.queue.appendleft(machine.file)
            machine.file = None
        self._at(now + self.setting.away, number, "back")

    def _try_again(self) -> None:
        """`--retry-failed`: all machines share the rows that failed."""
        setting = self.setting
        failed = setting.rows * setting.failing
        speed = sum(machine.speed for machine in self.machines)
        self.outcome.seconds += failed / speed

    def _counted(self) -> Outcome:
        """Each row that a ledger has, counted once."""
        for file in self.all:
            end = 0
            for first, rows in sorted(file.ledger.items()):
                self.outcome.twice += max(end - first, 0)
                self.outcome.written += first + rows - max(end, first)
                end = max(end, first + rows)
        self.outcome.lost = self.setting.rows - self.outcome.written
        return self.outcome

    def _at(self, time: float, number: int, kind: str) -> None:
        heapq.heappush(self.events, (time, number, self.machines[number].life, kind))


USUAL = Setting()
ONCE_AN_HOUR = replace(USUAL, taken_every=1.0)
SCENARIOS: dict[str, Setting] = {
    "nothing happens": USUAL,
    "5 % of the machines at a quarter of their speed": replace(USUAL, slow=0.05),
    "the same, one file for each machine": replace(USUAL, slow=0.05, files=USUAL.machines),
    "each machine is taken away every 8 hours": replace(USUAL, taken_every=8.0),
    "every hour": ONCE_AN_HOUR,
    "every hour, `--shard-rows 1000`": replace(ONCE_AN_HOUR, shard_rows=1000),
    "every hour, with notice (SIGTERM)": replace(ONCE_AN_HOUR, notice=True),
    "10 % of the rows fail, and are tried again": replace(USUAL, failing=0.1),
    "slow machines, every hour, failing rows": replace(ONCE_AN_HOUR, slow=0.05, failing=0.1),
}


def ideal(setting: Setting) -> float:
    """Seconds of the job if all its machines worked at the usual rate without a break."""
    return setting.rows / setting.machines / setting.rate


def mean(setting: Setting, seeds: int) -> Outcome:
    """The mean of several runs; of `most` the largest."""
    runs = [Simulation(setting, seed).run() for seed in range(seeds)]
    return Outcome(
        seconds=sum(run.seconds for run in runs) / seeds,
        written=min(run.written for run in runs),
        lost=max(run.lost for run in runs),
        twice=max(run.twice for run in runs),
        taken=round(sum(run.taken for run in runs) / seeds),
        repeated=round(sum(run.repeated for run in runs) / seeds),
        most=max(run.most for run in runs),
        fetched=round(sum(run.fetched for run in runs) / seeds),
    )


def table(seeds: int) -> Iterator[str]:
    """The scenarios as lines of Markdown."""
    heads = ("", "hours", "over ideal", "taken away", "rows embedded again", "by one, at most")
    yield f"| {' | '.join((*heads, 'downloaded again, at most', 'lost', 'twice'))} |"
    yield "|---" * 9 + "|"
    for name, setting in SCENARIOS.items():
        run = mean(setting, seeds)
        yield (
            f"| {name} | {run.seconds / HOUR:.1f} | {run.seconds / ideal(setting) - 1:.0%} | "
            f"{run.taken:,} | {run.repeated:,} ({run.repeated / setting.rows:.2%}) | "
            f"{run.most:,} | {run.fetched / setting.rows:.2%} | {run.lost:,} | {run.twice:,} |"
        )


EVERY = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # hours
SHARDS = (1_000, 3_000, 10_000)
_SMALLER = replace(USUAL, rows=10_000_000, machines=50, files=200)


def curves(seeds: int) -> dict[int, list[float]]:
    """Rows of a shard → the share of rows that is repeated, for each of `EVERY`."""
    return {
        rows: [
            mean(replace(_SMALLER, shard_rows=rows, taken_every=hours), seeds).repeated
            / _SMALLER.rows
            for hours in EVERY
        ]
        for rows in SHARDS
    }


def plot(file: Path, seeds: int) -> None:
    """Draws `curves` as an SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator, NullFormatter, PercentFormatter

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "score", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for rows, shares in curves(seeds).items():
            axes.plot(EVERY, shares, marker="o", label=f"shards of {rows:,} rows")
        axes.set(xscale="log", ylim=(0, None))
        axes.set(xlabel="hours between two removals of a machine", ylabel="rows embedded again")
        axes.set_xticks(EVERY, [f"{hours:g}" for hours in EVERY])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.yaxis.set_major_locator(MultipleLocator(0.05))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date")))


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    print(*table(options.seeds), sep="\n")
    if options.plot:
        plot(options.plot, options.seeds)


if __name__ == "__main__":
    commands.run(main)
