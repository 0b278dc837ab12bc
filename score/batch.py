"""CSV files of any length → files of vectors: one way, for the command line and for Azure ML.

As an Azure ML batch entry script (`init()`, `run(mini_batch)`), a mini-batch is a list of CSVs.
A file that cannot be read, like a row that cannot be answered, becomes a line of the result.
"""

from __future__ import annotations

import json
import os
import runpy
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

if __name__ != "score.batch":  # Azure's runner loads this file by its path
    runpy.run_path(str(Path(__file__).with_name("by_path.py")))

from score.embedder import Embedder
from score.errors import BlockedHost, RequestError
from score.folder import EMBEDDED
from score.jobs.pictures import FolderLines
from score.outputs import check_inputs
from score.params import Params
from score.parquet_table import SUFFIXES, ParquetTable
from score.rows import Record, Row
from score.settings import Settings
from score.tables import CsvTable, Line, Lines
from score.writers import writer_for

RESULT_COLUMNS = ["file", "row", "image_features", "text_features", "error_code", "error_message"]
"""The columns of what `run` returns; Azure's `append_row` writes them without a header."""


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
        "the pictures are on private addresses, from which nothing is fetched unless they are "
        "named: --allow-hosts NAME|ADDRESS|RANGE (SCORE_ALLOW_HOSTS)"
    )


_FORGOTTEN = Row()

Progress = Callable[[Summary], None]


def open_lines(source: Path) -> Lines:
    """The rows of a CSV or parquet file, or the pictures below a folder.

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
    """Embeds every row of a CSV or parquet file, or every picture below a folder, into `output`.

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
        for line, record in _answers(embedder, lines, params):
            writer.write(line.kept, record)
            summary.rows += 1
            summary.position = line.position
            if record.error:
                summary.failed[record.error.code] += 1
            summary.seconds = time.perf_counter() - began
            if progress:
                progress(summary)
    return summary


def _answers(embedder: Embedder, lines: Lines, params: Params) -> Iterator[tuple[Line, Record]]:
    """Each record beside its line, of which the row itself is forgotten by then."""
    asked: deque[Line] = deque()

    def rows() -> Iterator[Row]:
        for line in lines:
            asked.append(replace(line, row=_FORGOTTEN))
            yield line.row

    for record in embedder.embed(rows(), params, root=lines.root):
        yield asked.popleft(), record


# -- Azure ML ----------------------------------------------------------------------------------

_embedder: Embedder


def init() -> None:
    """Loads the model that Azure mounted at `AZUREML_MODEL_DIR`, else the embedded one."""
    global _embedder
    folder = os.environ.get("AZUREML_MODEL_DIR") or EMBEDDED
    _embedder = Embedder.load(folder, Settings.from_env(os.environ))


def run(mini_batch: Sequence[str]) -> pd.DataFrame:
    """One result row for each row of each CSV file, in order; vectors as JSON lists.

    Azure's `append_row` wants all of a mini-batch at once, about 20 KB a row: split large tables
    into files of some thousand rows, or use the command line. `file` is the path as Azure gave it.
    A file that is no table is one result row with its error and no row number.
    """
    results: list[list[object]] = []
    for file in mini_batch:
        path = Path(file)
        try:
            with CsvTable(path) as table:
                answers = _answers(_embedder, table, Params(on_error="report"))
                for number, (_, record) in enumerate(answers):
                    results.append([file, number, *_cells(record)])
        except (RequestError, OSError) as error:
            code = error.code if isinstance(error, RequestError) else "unreadable_file"
            results.append([file, None, None, None, code, str(error)])
    frame = pd.DataFrame(results, columns=RESULT_COLUMNS)
    return frame.astype({"row": "Int64"})


def _cells(record: Record) -> list[object]:
    vectors = [record.image_features, record.text_features]
    error = record.error
    return [
        *(None if vector is None else json.dumps(vector.tolist()) for vector in vectors),
        *((error.code, str(error)) if error else (None, None)),
    ]
