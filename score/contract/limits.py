"""The limits of one request, the same on every surface and in every format."""

from __future__ import annotations

from score.errors import body_too_large, too_many_rows


def check_row_count(count: int, most: int) -> None:
    """Raises RequestTooLarge for more than `most` rows."""
    if count > most:
        raise too_many_rows(most)


def check_body_size(size: int, most: int) -> None:
    """Raises RequestTooLarge for a body, or the cells of one, of more than `most` bytes."""
    if size > most:
        raise body_too_large(most)
