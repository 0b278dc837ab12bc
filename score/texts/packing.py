"""Packs the token ids of many texts into few arrays of few shapes, several texts a row.

This needs little padding, whatever the texts' lengths, and engines that compile for each new shape
compile few. Attention is masked between the texts of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from score.texts.tokenizer import Ids

Tokens = npt.NDArray[np.int64]

ROW = 80
"""Tokens in a row: enough for CLIP's 77. The cost of attention grows with it."""
SHARE = 4
"""Tokens of a row per text: a row of `ROW` tokens holds up to `ROW // SHARE` texts."""
MOST_ROWS = 32
"""Rows in one pass, where an engine names no other number."""
_ROOMS = (16, 32, ROW)  # tokens in a row that is computed alone


class Packed(NamedTuple):
    """Texts in rows of one length."""

    ids: Tokens
    """[rows, length]: token ids, one text after another, then padding."""
    positions: Tokens
    """[rows, length]: the position of each token in its own text."""
    owners: Tokens
    """[rows, length]: the index of each token's text in its row; -1 for padding."""
    ends: Tokens
    """[rows, texts]: the index of each text's last token in its row; 0 where there is no text."""

    def padded(self, rows: int, length: int, texts: int) -> Packed:
        """The same, with room for more rows, and more tokens and texts in each."""
        below = (0, rows - len(self.ids))
        wider = (below, (0, length - self.ids.shape[1]))
        ids, positions = np.pad(self.ids, wider), np.pad(self.positions, wider)
        owners = np.pad(self.owners, wider, constant_values=-1)
        return Packed(
            ids, positions, owners, np.pad(self.ends, (below, (0, texts - self.ends.shape[1])))
        )

    def roomy(self) -> Packed:
        """A single row, padded to the smallest of three lengths that holds it."""
        length, count = self.ids.shape[1], self.ends.shape[1]
        fitting = (room for room in _ROOMS if length <= room and count <= room // SHARE)
        room = next(fitting, length)
        return self.padded(1, room, max(count, room // SHARE))


Parts = Callable[[int, int], Iterator[slice]]
"""A count and the most in a pass → the slices that are passes."""


def whole(count: int, most: int) -> Iterator[slice]:
    """As few slices as make up a number, none of more than `most`."""
    return (slice(start, min(count, start + most)) for start in range(0, count, most))


def powers(count: int, most: int) -> Iterator[slice]:
    """Powers of two that make up a number, the largest first and none above `most`."""
    start = 0
    while start < count:
        size = min(most, 1 << ((count - start).bit_length() - 1))
        yield slice(start, start + size)
        start += size


def packed(
    texts: Sequence[Ids],
    most: int = MOST_ROWS,
    parts: Parts = powers,
    *,
    apart: bool = False,
) -> Iterator[tuple[Packed, list[list[int]]]]:
    """The passes over texts, and for each row of a pass the indices of its texts.

    Passes have up to `most` rows of the same length; a single row is only as long as its texts.
    `parts`: how rows are divided into passes. `apart`: each text has a row of its own.
    """
    length = max(ROW, max(map(len, texts), default=0))
    texts_of_row = 1 if apart else length // SHARE
    rows = _rows([len(ids) for ids in texts], length, texts_of_row)
    for part in parts(len(rows), most):
        several = rows[part]
        if len(several) == 1:
            tokens, room = sum(len(texts[index]) for index in several[0]), len(several[0])
        else:
            tokens, room = length, texts_of_row
        yield _pack(texts, several, tokens, room), several


def _rows(lengths: Sequence[int], length: int, most: int) -> list[list[int]]:
    """Indices of texts, grouped so that each group fits in a row: best fit, the longest first.

    `most`: texts in a row.
    """
    open_rows: list[list[list[int]]] = [[] for _ in range(length + 1)]  # by tokens left in them
    rows = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        size = lengths[index]
        left = next((left for left in range(size, length) if open_rows[left]), length)
        row = open_rows[left].pop() if left < length else []
        if not row:
            rows.append(row)
        row.append(index)
        if len(row) < most:
            open_rows[left - size].append(row)
    return rows


def _pack(texts: Sequence[Ids], rows: Sequence[Sequence[int]], length: int, most: int) -> Packed:
    ids, positions = np.zeros((2, len(rows), length), dtype=np.int64)
    owners = np.full((len(rows), length), -1, dtype=np.int64)
    ends = np.zeros((len(rows), most), dtype=np.int64)
    for number, row in enumerate(rows):
        start = 0
        for owner, index in enumerate(row):
            stop = start + len(texts[index])
            ids[number, start:stop] = texts[index]
            positions[number, start:stop] = np.arange(stop - start)
            owners[number, start:stop] = owner
            ends[number, owner] = stop - 1
            start = stop
    return Packed(ids, positions, owners, ends)
