"""A table of any length, or a folder of images → a file of vectors.

Used by the command line and by Azure ML's entry scripts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.core.pairs import embed_pairs
from score.jobs.line_source import open_lines
from score.jobs.summary import Summary
from score.storage.outputs import check_inputs
from score.tables.lines import Line, Lines
from score.tables.writers import writer_for

_NO_ROW = Row()


def embed_file(
    embedder: Embedder,
    source: str | Path,
    output: str | Path,
    params: Params | None = None,
    progress: Callable[[Summary], None] | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Embeds every row of a CSV or parquet file, or every image below a folder, into `output`.

    `output` ends in .parquet, .csv, .jsonl or .npy; what is there is replaced. Image cells may name
    files below the table's folder. Rows that fail are written with their error. `progress` is
    called after each row. `summary`: updated while the job runs. Raises RequestError for a file
    that is no table, or that the output would replace, and FileNotFoundError.
    """
    source, output = Path(source), Path(output)
    check_inputs(writer_for(output).files_of(output), [source])
    with open_lines(source) as lines:
        return embed_lines(embedder, lines, output, params or Params(), progress, summary)


def embed_lines(
    embedder: Embedder,
    lines: Lines,
    output: Path,
    params: Params,
    progress: Callable[[Summary], None] | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Embeds every row of an opened table into `output`, whose ending names its format.

    Image cells may name files below the table's folder. Rows that fail are written with their
    error. `progress` is called after each row. `summary`: an object that is updated while the job
    runs. An existing `output` is replaced.
    """
    summary = summary or Summary()
    began = time.perf_counter()
    with writer_for(output)(output, lines.columns, embedder.dimension) as writer:
        for line, record in line_records(embedder, lines, params):
            writer.write(line.kept, record)
            summary.rows += 1
            summary.position = line.position
            if record.error:
                summary.failed[record.error.code] += 1
            summary.seconds = time.perf_counter() - began
            if progress:
                progress(summary)
    return summary


def line_records(embedder: Embedder, lines: Lines, params: Params) -> Iterator[tuple[Line, Record]]:
    """Each line, without its row, beside its record."""
    items = ((replace(line, row=_NO_ROW), line.row) for line in lines)
    return embed_pairs(embedder, items, params, root=lines.root)
