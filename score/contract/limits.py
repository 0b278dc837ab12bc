"""The limits of one request, the same on every surface and in every format."""

from __future__ import annotations

from collections.abc import Sequence

from score.contract.labels import Labels
from score.contract.rows import Row, is_empty
from score.errors import BadColumns, RequestTooLarge

MAX_COLUMNS = 4_096
"""Columns of a table, in every format: each row in memory may have a cell for each."""

_LABEL_TEXT = 32  # characters of labels in an answer, for each of the probabilities it may have


def check_row_count(count: int, most: int) -> None:
    """Raises RequestTooLarge for more than `most` rows."""
    if count > most:
        raise too_many_rows(most)


def check_column_count(count: int, table: str) -> None:
    """Raises BadColumns for more than `MAX_COLUMNS` columns. `table`: its name."""
    if count > MAX_COLUMNS:
        raise BadColumns(
            f"{table} has {count:,} columns; at most {MAX_COLUMNS:,}: leave out columns that are "
            "not needed beside 'image' and 'text'"
        )


def check_body_size(size: int, most: int) -> None:
    """Raises RequestTooLarge for a body, or the cells of one, of more than `most` bytes."""
    if size > most:
        raise RequestTooLarge(f"the body is larger than {most:,} bytes; send fewer rows")


def check_scores(rows: int, labels: Labels, confidence: float, most: int) -> None:
    """Raises RequestTooLarge where an answer would hold more than `most` probabilities of labels,
    or more than 32 characters of labels for each of those. No more labels than 1 / `confidence`
    can be as probable as that. `most`: 0 for no limit.
    """
    lengths = sorted(map(len, labels.names), reverse=True)
    if confidence:
        lengths = lengths[: int(min(len(lengths), 1.001 / confidence))]
    if 0 < most < rows * len(lengths):
        raise RequestTooLarge(
            f"{rows:,} rows × {len(lengths):,} labels are more than the {most:,} probabilities "
            "that an answer may have (max_scores); send fewer rows or labels at a time"
        )
    if 0 < _LABEL_TEXT * most < rows * sum(lengths):
        raise RequestTooLarge(
            f"the labels of {rows:,} rows would be {rows * sum(lengths):,} characters of the "
            f"answer; at most {_LABEL_TEXT * most:,} ({_LABEL_TEXT} × max_scores): send fewer rows "
            "at a time, or shorter labels"
        )


NUMBER = 24
"""Bytes that a number of a vector takes as JSON, its comma included; few take more."""


def check_vectors(rows: Sequence[Row], dimension: int, number: int, most: int) -> None:
    """Raises RequestTooLarge where the vectors of an answer would take more than `most` bytes.

    dimension: numbers of a vector. number: bytes that each takes in the answer's format, 0 where
    it has no vectors. `most`: 0 for no limit.
    """
    each = dimension * number
    if most <= 0 or 2 * len(rows) * each <= most:
        return
    count = sum((not is_empty(row.image)) + (not is_empty(row.text)) for row in rows)
    if count * each > most:
        raise RequestTooLarge(
            f"the vectors of {count:,} images and texts would be about {count * each:,} bytes of "
            f"the answer; at most {most:,} (max_answer_bytes): send fewer rows at a time"
        )


def too_many_rows(most: int) -> RequestTooLarge:
    """The error for a table of more than `most` rows."""
    return RequestTooLarge(f"more than {most:,} rows in one request; send fewer at a time")
