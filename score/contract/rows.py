"""`Row`, the input, and `Record`, its output.

Knows nothing of JSON, tables or files, which the surfaces turn into rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from score.errors import BadColumns, RowError
from score.type_aliases import Vector
from score.wording.quoting import listed, quoted

IMAGE = "image"
TEXT = "text"
COLUMNS = (IMAGE, TEXT)
FEATURES = ("image_features", "text_features")
NO_COLUMN = f"no column {IMAGE!r} or {TEXT!r}"
ERRORS = ("error_code", "error_message", "error_retryable")  # in tables

# pandas' missing-value singletons, known by name because this module does not import pandas.
_PANDAS_MISSING = {"NAType", "NaTType"}
_SPELLED_MISSING = "<NA>"
# How tools write a missing value as text: pandas, R, SQL dumps, spreadsheets, JavaScript.
_MISSING_AS_TEXT = {
    *("nan", "-nan", "na", "n/a", "#n/a", "<na>", "nat"),
    *("none", "null", "nil", "undefined", "\\n"),
}
_LONGEST_MISSING = max(map(len, _MISSING_AS_TEXT))


@dataclass(frozen=True, slots=True)
class Row:
    """An image, a text or both.

    `image` is an http(s) URL, base64, a `data:` URI or the image's bytes; `text` is a string.
    Either may be empty. A cell holds whatever the client sent; the embedder answers one of a wrong
    type with a row error. A cell may also be a RowError, with which the reader of a table reports
    that it could not read that cell.
    """

    image: object = None
    text: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A row's result: float32 vectors of shape [dimension] for the cells the row had, or an error.

    labels, probs: the image's labels and their probabilities, the most probable first; None where
    the request had no labels or the row no image; the text's where `Embedder.answer` was asked to
    `classify_texts`. tokens: the token ids of the text, begin and end
    included, at most the model's context; 0 without a text.
    """

    image_features: Vector | None = None
    text_features: Vector | None = None
    error: RowError | None = None
    labels: tuple[str, ...] | None = None
    probs: tuple[float, ...] | None = None
    tokens: int = 0


def is_empty(cell: object) -> bool:
    """Whether a cell is empty: None, NaN, pandas' NA or NaT, `<NA>`, blank, no bytes."""
    if cell is None:
        return True
    if isinstance(cell, str):
        return not cell or cell.isspace() or cell == _SPELLED_MISSING
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return len(cell) == 0
    if isinstance(cell, (float, np.floating)):
        return bool(np.isnan(cell))
    return type(cell).__name__ in _PANDAS_MISSING


def looks_missing(cell: str) -> bool:
    """Whether a cell, stripped, is text for a missing value, such as `nan` or `N/A`.

    Such an image is an error with a hint. Such a text is encoded as it is: it may be meant.
    """
    return len(cell) <= _LONGEST_MISSING and cell.lower() in _MISSING_AS_TEXT


def is_result(columns: Collection[object]) -> bool:
    """Whether a table with these columns is the output of one of our jobs."""
    return set(ERRORS) <= set(columns)


def check_columns(names: Sequence[object]) -> None:
    """Raises BadColumns unless there is an `image` or a `text` column, each at most once.

    Other columns are ignored, but a name that is nearly `image` or `text` is refused: a record
    without its vectors would hide the mistake.
    """
    for wanted in COLUMNS:
        if list(names).count(wanted) > 1:
            raise BadColumns(
                f"the column {wanted!r} appears {list(names).count(wanted)} times: one must remain"
            )
    check_spelling(names)
    if not any(wanted in names for wanted in COLUMNS):
        only = names[0] if len(names) == 1 else ""
        if isinstance(only, str) and (mark := next((m for m in ";\t|" if m in only), "")):
            raise BadColumns(
                f"{NO_COLUMN}; the only one is {quoted(only)}: columns are separated by commas, "
                f"not by {mark!r}"
            )
        raise BadColumns(f"{NO_COLUMN}; the columns are {listed(names)}")


def check_spelling(names: Sequence[object]) -> None:
    """Raises BadColumns for a name that differs from `image` or `text` only by case, blanks or a
    byte order mark, where the exact name is missing."""
    for wanted in COLUMNS:
        near = [n for n in names if isinstance(n, str) and _bare(n) == wanted != n]
        if near and wanted not in names:
            raise BadColumns(f"column {quoted(near[0])} must be spelled {wanted!r}")


def _bare(name: str) -> str:
    """The byte order mark stands before the first name of a CSV that Excel saved."""
    return name.replace("\ufeff", "").strip().lower()
