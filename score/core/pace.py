"""How long a unit of work takes here, by the latest measurements."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from score.concurrency.forks import renewing
from score.core.batching import Compute
from score.type_aliases import Matrix

_KEPT, _ENOUGH = 15, 5  # measurements: kept, and needed for an estimate


class Pace:
    """Seconds a unit. Safe to share between threads.

    The median of the latest measurements: the first pass of a process, or one beside another
    program's work, may take a hundred times as long as those after it.
    """

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_KEPT)
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds that a unit takes; 0 until enough have been measured."""
        with self._lock:
            latest = sorted(self._latest)
        return latest[len(latest) // 2] if len(latest) >= _ENOUGH else 0.0

    @contextmanager
    def measuring(self, units: int = 1) -> Iterator[None]:
        """Measures a block that does `units` of work. One that fails does not count."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        with self._lock:
            self._latest.append(seconds / units)

    def of(self, compute: Compute, cost: Callable[[Any], int]) -> Compute:
        """`compute`, measured; `cost`: the units of an input, at least one."""

        def measured(inputs: Sequence[Any]) -> Matrix:
            with self.measuring(sum(map(cost, inputs))):
                return compute(inputs)

        return measured
