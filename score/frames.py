"""DataFrame → rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from score.errors import RequestError
from score.rows import IMAGE, TEXT, Row, check_columns


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame with an `image` column, a `text` column or both. Raises BadColumns."""
    check_columns(list(frame.columns))
    nothing = [None] * len(frame)
    pictures = frame[IMAGE].tolist() if IMAGE in frame else nothing
    texts = frame[TEXT].tolist() if TEXT in frame else nothing
    return [Row(image, text) for image, text in zip(pictures, texts, strict=True)]


def read_csv(source: Any) -> pd.DataFrame:
    """A small CSV (path or stream) as a frame of strings. Raises RequestError.

    Nothing is guessed: pandas would take a column of empty cells for numbers, and "NA" for nothing.
    """
    try:
        return pd.read_csv(source, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise RequestError(f"not a CSV table: {error}") from None
