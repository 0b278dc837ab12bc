"""Texts in rows: nothing lost, nothing seen that is another's, few shapes."""

from __future__ import annotations

import numpy as np
import pytest

from score.texts.packing import Packed, packed
from score.texts.tokenizer import Ids

SIZES = {
    "none": [],
    "one": [9],
    "two in a row": [5, 7],
    "full contexts": [77] * 5,
    "longer than a row": [120, 3, 3, 119],
    "labels": [3] * 500,
    "captions": [int(size) for size in np.random.default_rng(0).integers(3, 78, 700)],
}


def texts_of(sizes: list[int]) -> list[Ids]:
    dice = np.random.default_rng(1)
    return [dice.integers(1, 1000, size).tolist() for size in sizes]


def unpacked(batch: Packed, row: int, place: int) -> Ids:
    """The text that stands at a place of a row, by what the arrays say of it."""
    at = np.flatnonzero(batch.owners[row] == place)
    assert batch.ends[row, place] == at[-1]
    np.testing.assert_array_equal(batch.positions[row, at], np.arange(len(at)))
    np.testing.assert_array_equal(at, np.arange(at[0], at[-1] + 1))
    found: Ids = batch.ids[row, at].tolist()
    return found


@pytest.mark.parametrize("name", SIZES)
def test_every_text_stands_somewhere_whole(name: str) -> None:
    texts = texts_of(SIZES[name])
    found: dict[int, Ids] = {}
    for batch, rows in packed(texts):
        assert len(batch.ids) == len(rows)
        for row, indices in enumerate(rows):
            for place, index in enumerate(indices):
                assert index not in found
                found[index] = unpacked(batch, row, place)
            assert batch.owners[row].max() == len(indices) - 1  # and padding is nobody's
    assert [found[index] for index in range(len(texts))] == texts


def test_shapes_are_few() -> None:
    """An engine that prepares itself for each of them soon knows them all."""
    shapes = set()
    for seed in range(50):
        dice = np.random.default_rng(seed)
        sizes = dice.integers(3, 78, dice.integers(2, 400)).tolist()
        shapes |= {batch.ids.shape for batch, _ in packed(texts_of(sizes))}
    assert {shape for shape in shapes if shape[0] > 1} == {(1 << n, 80) for n in range(1, 6)}


def test_little_is_padding() -> None:
    dice = np.random.default_rng(2)
    sizes = (3 + dice.lognormal(2.3, 0.5, 1000)).clip(3, 77).astype(int).tolist()
    cells = sum(batch.ids.size for batch, _ in packed(texts_of(sizes)))
    assert sum(sizes) / cells >= 0.95


def test_a_single_row_is_no_longer_than_its_texts() -> None:
    ((batch, _),) = packed(texts_of([5, 7]))
    assert batch.ids.shape == (1, 12)
    assert batch.ends.shape == (1, 2)


def test_rows_can_be_made_longer() -> None:
    ((batch, _),) = packed(texts_of([5, 7]))
    wider = batch.padded(3, 16, 4)
    assert wider.ids.shape == (3, 16)
    assert wider.ends.shape == (3, 4)
    assert (wider.owners[1:] == -1).all()
    for place in (0, 1):
        assert unpacked(wider, 0, place) == unpacked(batch, 0, place)
    assert (wider.owners[0, 12:] == -1).all()
