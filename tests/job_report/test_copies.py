"""Copies of images, counted in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from score.job_report.copies import CopyCounter

DICE = np.random.default_rng(5)


def counted(keys: NDArray[np.uint64], *, most: int, batch: int = 97) -> CopyCounter:
    counter = CopyCounter(most)
    rows = np.arange(len(keys), dtype=np.int64)
    for begin in range(0, len(keys), batch):
        counter.add(keys[begin : begin + batch], rows[begin : begin + batch])
    return counter


def random_keys(count: int) -> NDArray[np.uint64]:
    return DICE.integers(0, 2**64 - 1, count, dtype=np.uint64, endpoint=True)


def test_few_images_are_counted_exactly() -> None:
    keys = np.array([7, 2**64 - 1, 7, 3, 7, 2**64 - 1], np.uint64)
    counter = counted(keys, most=4, batch=2)
    assert (counter.rows, counter.different, counter.copies) == (6, 3, 3)
    assert counter.is_exact
    assert counter.undercount == 0
    largest = [(group.key, group.rows, group.first) for group in counter.largest(10)]
    assert largest == [("0000000000000007", 3, 0), ("f" * 16, 2, 1)]
    assert counter.largest(1)[0].rows == 3


def test_no_images() -> None:
    counter = CopyCounter()
    counter.add(np.empty(0, np.uint64), np.empty(0, np.int64))
    assert (counter.rows, counter.different, counter.copies) == (0, 0, 0)
    assert counter.largest(3) == []
    assert counter.is_exact


def test_many_images_are_estimated_and_large_groups_are_found() -> None:
    most = 2_000
    unique = random_keys(100_000)
    large = {int(key): size for key, size in zip(random_keys(3), (9000, 4000, 2500), strict=True)}
    keys = np.concatenate([unique, *(np.full(n, key, np.uint64) for key, n in large.items())])
    DICE.shuffle(keys)
    counter = counted(keys, most=most)
    assert not counter.is_exact
    assert counter.rows == len(keys)
    assert counter.different == pytest.approx(100_003, rel=0.1)
    assert counter.copies == pytest.approx(len(keys) - 100_003, rel=0.8)
    assert len(counter._keys) <= most
    assert len(counter._below) <= most
    found = {int(group.key, 16): group for group in counter.largest(10)}
    assert found.keys() >= large.keys()
    for key, size in large.items():
        assert size - counter.undercount <= found[key].rows <= size
        assert keys[found[key].first] == key


def test_a_group_is_never_told_too_large() -> None:
    keys = random_keys(50)[DICE.integers(0, 50, 20_000)]
    counter = counted(keys, most=16)
    sizes = dict(zip(*np.unique(keys, return_counts=True), strict=True))
    for group in counter.largest(50):
        size = int(sizes[np.uint64(int(group.key, 16))])
        assert group.rows <= size <= group.rows + counter.undercount
