"""A table of any length, or a folder of images → a file of vectors.

Used by the command line and by Azure ML's entry scripts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from score.contract.params import Params
from score.contract.rows import Record
from score.core.embedder import Embedder
from score.core.identity import Identity
from score.core.pairs import embed_pairs
from score.jobs.line_source import open_lines
from score.jobs.summary import Summary, count
from score.storage.outputs import check_inputs
from score.tables.lines import Line, Lines
from score.tables.writers import writer_for


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
    output = Path(output)
    check_inputs(writer_for(output).files_of(output), [Path(source)])
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
    writer_of = writer_for(output)
    about = _about(embedder) if writer_of.says_about else {}
    with writer_of(output, lines.columns, embedder.dimension, about, lines.types) as writer:
        for line, record in line_records(embedder, lines, params):
            writer.write(line.kept, record)
            count(summary, record, line.position, time.perf_counter() - began)
            if progress:
                progress(summary)
    return summary


def _about(embedder: Embedder) -> dict[str, str]:
    """What a file says of its vectors. Reads the model's folder the first time."""
    return Identity.of(embedder).metadata()


def line_records(embedder: Embedder, lines: Lines, params: Params) -> Iterator[tuple[Line, Record]]:
    """Each line, without its row, beside its record."""
    items = ((line.bare(), line.row) for line in lines)
    return embed_pairs(embedder, items, params, root=lines.root)
