"""Items beside their records: in order, and without their rows."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.core.pairs import embed_pairs


class Cell(str):
    """A text that tells when it is gone."""


def test_each_item_has_its_own_record(embedder: Embedder) -> None:
    texts = ["a cat", "", "a dog", "a " * 200, "a cat"]
    items = ((number, Row(text=text)) for number, text in enumerate(texts))
    pairs = list(embed_pairs(embedder, items, Params(truncate="error")))
    assert [number for number, _ in pairs] == [0, 1, 2, 3, 4]
    codes = [record.error.code if record.error else None for _, record in pairs]
    assert codes == [None, "empty_row", None, "text_too_long", None]
    for number in (0, 2, 4):
        features = pairs[number][1].text_features
        assert features is not None
        np.testing.assert_allclose(
            features, embedder.embed_text(texts[number]), rtol=1e-4, atol=1e-5
        )


def test_rows_are_not_kept(embedder: Embedder) -> None:
    """A row may hold megabytes of an inline image, and thousands of records may wait for one."""
    alive: weakref.WeakSet[Cell] = weakref.WeakSet()
    most = 0

    def items() -> Iterator[tuple[int, Row]]:
        nonlocal most
        for number in range(3000):
            cell = Cell(f"cat {number}")
            alive.add(cell)
            most = max(most, len(alive))
            yield number, Row(text=cell)

    for done, (number, _) in enumerate(embed_pairs(embedder, items())):
        assert number == done
    assert most < 1000


def test_an_error_in_the_source_goes_on(embedder: Embedder) -> None:
    def items() -> Iterator[tuple[int, Row]]:
        yield 0, Row(text="a cat")
        raise KeyError

    with pytest.raises(KeyError):
        list(embed_pairs(embedder, items()))
