"""What the process that has a job's folder and its workers tell each other, all of it pickled."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from score.contract.params import Params
from score.core.identity import Identity
from score.job_folder.known import VECTORS_BYTES
from score.job_folder.ledger import Entry
from score.job_folder.ranges import Range
from score.settings import Settings
from score.type_aliases import VectorType

_OF_MACHINE = ("fetch_workers", "decode_workers")


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker of a job computes, and of what.

    model: its folder. name, fingerprint: of it. sources, columns: the input, as for `open_lines`.
    root: the folder below which image cells may name files. folder: the job's, which workers see
    under this path. vector_cache, vector_cache_bytes: as in `JobOptions`. is_here: whether all
    workers are on this machine: else they share no file that keeps what is known. sizes: of the
    input's files, by which a worker sees that it reads the same.
    """

    model: str
    name: str
    fingerprint: str
    settings: Settings
    params: Params
    vectors: VectorType
    sources: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    root: Path | None
    folder: Path
    vector_cache: Path | None = None
    vector_cache_bytes: int = VECTORS_BYTES
    is_here: bool = True
    sizes: tuple[int, ...] = ()

    def shared_by(self, workers: int, of_machine: int | None = None) -> Work:
        """With settings by which some workers together ask no more of a host than one process
        would, and those of one machine no more of that. of_machine: how many; None for all."""
        settings, here = self.settings, of_machine or workers
        limits = {"per_host": max(1, settings.per_host // workers)}
        for name in _OF_MACHINE:
            if most := getattr(settings, name):
                limits[name] = max(1, most // here)
        return self._with(limits)

    def as_begun(self, begun: Begun) -> Work:
        """With the first worker's choices, so that all vectors are of one kind."""
        return self._with({"precision": begun.identity.precision, "engine": begun.identity.engine})

    def _with(self, values: Mapping[str, object]) -> Work:
        texts = {name: str(value) for name, value in values.items()}
        return dataclasses.replace(self, settings=self.settings.replace(texts))


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker has loaded the model."""

    identity: Identity
    dimension: int


@dataclass(frozen=True, slots=True)
class Task:
    """Rows that are to be one shard; their number is known.

    entry: of the shard that has them, of which only rows that may succeed another time are embedded
    again; None where all are embedded.
    """

    rows: Range
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """How far a worker is with a task. rows: that are embedded. failed: error code → rows."""

    rows: int
    failed: Counter[str]


@dataclass(frozen=True, slots=True)
class Result:
    """A task is done.

    entry: of the shard that was written, whose file has a name below `ATTEMPTS` yet; None where the
    shard to be tried again was damaged, or had no such rows. retried, recovered: rows that were
    tried again, and those that succeeded.
    """

    task: Task
    entry: Entry | None
    retried: int = 0
    recovered: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A task is given up, since workers that had it died. why: the rest of a sentence."""

    task: Task
    why: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A worker cannot go on, and another could not either. why: a sentence for users."""

    why: str


@dataclass(frozen=True, slots=True)
class UnderWay:
    """How far a worker is with its tasks, by their first rows."""

    partials: dict[int, Partial] = field(default_factory=dict)
