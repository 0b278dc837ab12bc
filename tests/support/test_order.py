"""Workers begin with what takes long, have equal parts, and set no module up twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.order import dealt


@dataclass(frozen=True)
class Case:
    """A test as `dealt` sees it."""

    module: str
    number: int
    marker: str = ""

    @property
    def path(self) -> Path:
        return Path(self.module)

    def get_closest_marker(self, name: str) -> object:
        return name == self.marker


def module(name: str, tests: int, marker: str = "", long: int = 0) -> list[Case]:
    return [Case(name, number, marker if number < long else "") for number in range(tests)]


TESTS = [
    *module("a", 3),
    *module("b", 4, "slow", long=1),
    *module("c", 9),
    *module("d", 3, "process", long=3),
    *module("e", 4),
    *module("f", 5, "reference", long=2),
]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
def test_no_test_is_lost_and_modules_keep_their_order(workers: int) -> None:
    order = dealt(TESTS, workers)
    assert sorted(order, key=TESTS.index) == TESTS
    for name in "abcdef":
        assert [case for case in order if case.module == name] == module_of(name)


def module_of(name: str) -> list[Case]:
    return [case for case in TESTS if case.module == name]


def test_each_part_begins_with_what_takes_long() -> None:
    order = dealt(TESTS, 2)
    half = len(order) // 2
    assert [case.module for case in order[:half]] == [*"ddd", *"aaa", *"cccccccc"]
    assert [case.module for case in order[half:]] == [*"fffff", *"bbbb", *"c", *"eeee"]


def test_workers_begin_with_what_takes_minutes() -> None:
    tests = [*module("a", 9, "process", long=9), *module("b", 5, "minutes", long=1)]
    order = dealt([*tests, *module("c", 20, "slow", long=20)], 2)
    assert [order[0].module, order[-1].module] == ["b", "a"]
    assert [case.module for case in order[:5]] == ["b"] * 5


def test_long_tests_are_shared_fairly() -> None:
    tests = [case for name in "abcdefgh" for case in module(name, 10, "process", long=10)]
    first = {case.module for case in dealt(tests, 4)[:20]}
    assert first == {"a", "e"}
