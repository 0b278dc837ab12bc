"""What goes in and what comes out: a `Row` is a question, a `Record` its answer.

Knows nothing of JSON, tables or files; those are turned into rows at the surfaces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from score.arrays import Vector
from score.errors import BadColumns, RowError

IMAGE = "image"
TEXT = "text"
COLUMNS = (IMAGE, TEXT)
FEATURES = ("image_features", "text_features")
ERRORS = ("error_code", "error_message", "error_retryable")  # in tables

# pandas' missing-value singletons, known by name because this floor does not import pandas.
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
    """One question.

    `image` is an http(s) URL, base64, a `data:` URI or the image's bytes; `text` is a string.
    Either may be empty. Cells hold whatever the client sent, wrong types included: the embedder
    answers those with a row error rather than refusing them here. A cell may also be a RowError, by
    which a reader says why it could not read that cell.
    """

    image: object = None
    text: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One answer: float32 vectors of shape [dimension] for the cells the row had, or an error.

    Where the request had labels and the row an image, `labels` and `probs` say which of them it
    shows, the most probable first.
    """

    image_features: Vector | None = None
    text_features: Vector | None = None
    error: RowError | None = None
    labels: tuple[str, ...] | None = None
    probs: tuple[float, ...] | None = None


def is_empty(cell: object) -> bool:
    """Whether a cell asks for nothing: None, NaN, pandas' NA or NaT, `<NA>`, blank, no bytes."""
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
    """Whether a cell without blanks around it spells out a missing value, as `nan` or `N/A`.

    Such an image is an error with a hint; such a text may be meant and is taken as it is.
    """
    return len(cell) <= _LONGEST_MISSING and cell.lower() in _MISSING_AS_TEXT


def is_result(columns: Collection[object]) -> bool:
    """Whether a table's columns show that a job of ours wrote it."""
    return set(ERRORS) <= set(columns)


def check_columns(names: Sequence[object]) -> None:
    """Raises BadColumns unless a table with these columns can be asked.

    Other columns are fine, but a name that is nearly `image` or `text` is surely a mistake, and an
    answer without its vectors would hide it.
    """
    for wanted in COLUMNS:
        if list(names).count(wanted) > 1:
            raise BadColumns(f"column {wanted!r} appears {list(names).count(wanted)} times")
    check_spelling(names)
    if not any(wanted in names for wanted in COLUMNS):
        listed = ", ".join(repr(name)[:80] for name in names[:10]) or "none"
        raise BadColumns(f"no column 'image' or 'text'; the columns are {listed}")


def check_spelling(names: Sequence[object]) -> None:
    """Raises BadColumns for a name that is `image` or `text` but for case, blanks or a BOM, where
    the right name is missing."""
    for wanted in COLUMNS:
        near = [n for n in names if isinstance(n, str) and _bare(n) == wanted != n]
        if near and wanted not in names:
            raise BadColumns(f"column {near[0][:80]!r} must be spelled {wanted!r}")


def _bare(name: str) -> str:
    """The byte order mark is what a CSV saved by Excel leaves before the first name."""
    return name.replace("\ufeff", "").strip().lower()
