"""A table of any length, or a folder of images → a file of vectors.

One way for the command line, for Azure ML's entry scripts and for the jobs that merge or label.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.errors import BlockedHost
from score.jobs.image_source import FolderLines
from score.storage.outputs import check_inputs
from score.tables.csv_reader import CsvTable
from score.tables.lines import Line, Lines
from score.tables.parquet_reader import SUFFIXES, ParquetTable
from score.tables.writers import writer_for


@dataclass
class Summary:
    """How a job went."""

    rows: int = 0
    position: int = 0  # bytes of the input that these rows took
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def errors(self) -> int:
        """Rows that failed."""
        return self.failed.total()

    @property
    def good(self) -> int:
        """Rows that were answered."""
        return self.rows - self.errors

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def hint(self) -> str:
        """What to do about errors of a kind that a setting would avoid; empty where none would."""
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
    """A sentence for a job in which nothing was good and hosts were blocked; else empty."""
    if good or not failed[BlockedHost.code]:
        return ""
    return (
        "the images are on private addresses, from which nothing is fetched unless they are "
        "named: --allow-hosts NAME|ADDRESS|RANGE (SCORE_ALLOW_HOSTS)"
    )


_FORGOTTEN = Row()

Progress = Callable[[Summary], None]


def open_lines(source: Path) -> Lines:
    """The rows of a CSV or parquet file, or the images below a folder.

    Raises RequestError for what holds none, FileNotFoundError.
    """
    if source.is_dir():
        return FolderLines(source)
    if source.is_file():
        return ParquetTable(source) if source.suffix in SUFFIXES else CsvTable(source)
    raise FileNotFoundError(f"no such file or folder: {source}")


def embed_file(
    embedder: Embedder,
    source: Path,
    output: Path,
    params: Params,
    progress: Progress | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Embeds every row of a CSV or parquet file, or every image below a folder, into `output`.

    As `embed_lines`. Raises RequestError for a file that is no table, or that the output would
    replace.
    """
    check_inputs(writer_for(output).files_of(output), [source])
    with open_lines(source) as lines:
        return embed_lines(embedder, lines, output, params, progress, summary)


def embed_lines(
    embedder: Embedder,
    lines: Lines,
    output: Path,
    params: Params,
    progress: Progress | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Embeds every row of an opened table into `output`, whose ending names its format.

    Image cells may name files below the table's folder. Rows that fail are written with their
    error. `progress` is called after each row. A `summary` given is counted on while the job runs.
    What is at `output` is replaced.
    """
    summary = summary or Summary()
    began = time.perf_counter()
    with writer_for(output)(output, lines.columns, embedder.dimension) as writer:
        for line, record in answers(embedder, lines, params):
            writer.write(line.kept, record)
            summary.rows += 1
            summary.position = line.position
            if record.error:
                summary.failed[record.error.code] += 1
            summary.seconds = time.perf_counter() - began
            if progress:
                progress(summary)
    return summary


def answers(embedder: Embedder, lines: Lines, params: Params) -> Iterator[tuple[Line, Record]]:
    """Each record beside its line, of which the row itself is forgotten by then."""
    asked: deque[Line] = deque()

    def rows() -> Iterator[Row]:
        for line in lines:
            asked.append(replace(line, row=_FORGOTTEN))
            yield line.row

    for record in embedder.embed(rows(), params, root=lines.root):
        yield asked.popleft(), record
