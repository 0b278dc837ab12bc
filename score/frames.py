"""DataFrame ↔ rows and records."""

from __future__ import annotations

import pandas as pd

from score.rows import IMAGE, TEXT, Row, check_columns


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame with an `image` column, a `text` column or both. Raises BadColumns."""
    check_columns(list(frame.columns))
    nothing = [None] * len(frame)
    pictures = frame[IMAGE].tolist() if IMAGE in frame else nothing
    texts = frame[TEXT].tolist() if TEXT in frame else nothing
    return [Row(image, text) for image, text in zip(pictures, texts, strict=True)]
