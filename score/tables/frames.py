"""Rows ↔ pandas frames, and request bodies as frames."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO

import pandas as pd

from score.contract.limits import check_row_count
from score.contract.rows import IMAGE, NO_COLUMN, TEXT, Row, check_columns
from score.errors import BadColumns, RequestError
from score.tables import parquet_body
from score.tables.csv_body import body_rows
from score.tables.csv_reader import CsvTable


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame with an `image` column, a `text` column or both. Raises BadColumns."""
    check_columns(list(frame.columns))  # any number: the frame is in memory
    nothing = [None] * len(frame)
    images = frame[IMAGE].tolist() if IMAGE in frame else nothing
    texts = frame[TEXT].tolist() if TEXT in frame else nothing
    return [Row(image, text) for image, text in zip(images, texts, strict=True)]


def unpacked(frame: pd.DataFrame) -> pd.DataFrame:
    """The table that a caller gave to MLflow's `predict`, from the frame that MLflow makes of it.

    MLflow drops columns that are not in the signature, and turns `{"text": ["a", "b"]}` into one
    row whose cell is the list. Raises BadColumns, RequestError.
    """
    if frame.columns.empty:
        raise BadColumns(
            f"{NO_COLUMN}; give a frame, a dict or a list of dicts with one of them (a Series is "
            "one column, not a row)"
        )
    if len(frame) != 1:
        return frame
    # As in JSON, None stands for a missing column.
    columns = {name: cell for name, cell in frame.iloc[0].items() if cell is not None}
    if not columns or not all(map(_is_list_of_strings, columns.values())):
        return frame
    if len({*map(len, columns.values())}) > 1:
        raise RequestError("the columns are of different length")
    return pd.DataFrame(columns, dtype=object)


def _is_list_of_strings(cell: object) -> bool:
    return isinstance(cell, list) and all(isinstance(item, str) for item in cell)


def read_csv(source: IO[str] | str | bytes, *, max_rows: int) -> pd.DataFrame:
    """A CSV body (its bytes, a stream, or the path of a file) as a frame with the columns `image`
    and `text`.

    A line that cannot be read is a row whose text is the RowError that says why. Raises BadColumns,
    RequestTooLarge, RequestError.
    """
    if isinstance(source, str):
        try:
            with CsvTable(Path(source)) as table:
                return _frame(table.rows(), max_rows)
        except OSError as error:
            raise RequestError(f"{source} cannot be read: {error.strerror}") from None
    if not isinstance(source, bytes):
        source = source.read().encode("utf-8", "surrogateescape")
    return _frame(body_rows(source), max_rows)


def read_parquet(source: IO[bytes], *, max_rows: int, max_bytes: int) -> pd.DataFrame:
    """A parquet body as `read_csv` gives a CSV, and with the same errors."""
    return _frame(parquet_body.read(source, max_rows=max_rows, max_bytes=max_bytes), max_rows)


def _frame(rows: Iterable[Row], max_rows: int) -> pd.DataFrame:
    kept = list(islice(rows, max_rows + 1))
    check_row_count(len(kept), max_rows)
    # dtype object: pandas would infer numbers for an empty column, which MLflow refuses.
    columns = {IMAGE: [row.image for row in kept], TEXT: [row.text for row in kept]}
    return pd.DataFrame(columns, dtype=object)
