"""The order of the tests for workers of pytest-xdist: those that take long first.

With `--dist worksteal` each worker gets an equal part of the list, one after the other, and takes
over half of another's rest, from its end, when its own is done. So a long test at the end of a part
would keep one worker busy while the others have nothing left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

LONG = {"minutes": 30, "process": 1, "reference": 1, "slow": 1}
"""The markers of tests that may take long, and how many of the others one takes as long as."""


class Item(Protocol):
    """What is asked of pytest's items."""

    @property
    def path(self) -> os.PathLike[str]: ...

    def get_closest_marker(self, name: str) -> object: ...


T = TypeVar("T", bound=Item)


def workers() -> int:
    """How many run this session's tests."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def dealt(tests: Sequence[T], workers: int) -> list[T]:
    """Each worker's part one after the other: first modules with long tests, then the others.

    Modules stay whole, for their fixtures' sake, but for those that fill a part up.
    """
    modules = [[*group] for _, group in groupby(tests, key=lambda test: test.path)]
    modules.sort(key=_weight, reverse=True)
    parts: list[list[T]] = [[] for _ in range(workers)]
    for module in filter(_weight, modules):
        min(parts, key=_weight).extend(module)
    short = [test for module in modules if not _weight(module) for test in module]
    for taken, part in enumerate(parts):
        size = sum(map(len, parts[taken:]), len(short)) // (workers - taken)
        room = max(size - len(part), 0)
        part += short[:room]
        short = short[room:]
    return [test for part in parts for test in part]


def _weight(tests: Iterable[Item]) -> int:
    """The number of long tests, with the longest counted as many."""
    return sum(
        max((weight for name, weight in LONG.items() if test.get_closest_marker(name)), default=0)
        for test in tests
    )
