"""Entry script of an Azure ML batch deployment (`output_action: append_row`).

`init()` once a process, `run(mini_batch)` for some CSV files. A file that cannot be read, like a
row that cannot be answered, becomes a line of the result.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

if __name__ != "score.batch":  # Azure's runner loads this file by its path
    runpy.run_path(str(Path(__file__).parent / "entry" / "by_path.py"))

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import Record
from score.core.embedder import Embedder
from score.entry import model
from score.errors import RequestError
from score.jobs.embed import line_records
from score.tables.csv_reader import CsvTable

RESULT_COLUMNS = ["file", "row", "image_features", "text_features", "error_code", "error_message"]
"""The columns of what `run` returns; Azure's `append_row` writes them without a header."""

_embedder: Embedder


def init() -> None:
    """Loads the model that Azure mounted at `AZUREML_MODEL_DIR`, else the embedded one."""
    global _embedder
    _embedder = model.load(os.environ)


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
                pairs = line_records(_embedder, table, Params(on_error="report"))
                for number, (_, record) in enumerate(pairs):
                    results.append([file, number, *_cells(record)])
        except (RequestError, OSError) as error:
            code = error.code if isinstance(error, RequestError) else "unreadable_file"
            results.append([file, None, None, None, code, str(error)])
    # dtype object: pandas 3 would make strings beside None a column with NaN.
    frame = pd.DataFrame(results, columns=RESULT_COLUMNS, dtype=object)
    return frame.astype({"row": "Int64"})


def _cells(record: Record) -> list[object]:
    vectors = [record.image_features, record.text_features]
    error = record.error
    return [
        *(None if vector is None else wire.dump(vector.tolist()).decode() for vector in vectors),
        *((error.code, str(error)) if error else (None, None)),
    ]
