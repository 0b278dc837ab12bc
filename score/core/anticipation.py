"""How long the next pass should wait for callers that have just been answered.

Theory of operation. A few callers that ask again as soon as they are answered split into two
groups: while the inputs of one are computed, those of the other arrive. So each pass has half of
the inputs that it could have. That is slow, since to read the weights takes as long for one input
as for several. Disk schedulers know the same effect as deceptive idleness (Iyer and Druschel,
"Anticipatory Scheduling", SOSP 2001).

A pass takes a fixed time beside that of its inputs: what a pass of one input takes, less what an
input takes in a large pass. A pass that waits for `expected` inputs while `here` inputs are waiting
pays if it waits for less than `expected / here` of the fixed time. In no case does it wait for
longer than the fixed time after the pass before it, or if nobody is expected.

Callers are expected if they have been coming back: for each request that a pass answers, another
has arrived within the fixed time, nearly always. A single caller, and callers whose requests do not
depend on answers, are not made to wait; nor are more callers than come back in that time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

# Stated, and tried on simulated callers (tests/core/test_anticipation.py).
_PROMPT = 0.9  # share of answered requests that come back, from which on they are waited for
_WEIGHT = 0.15  # of the latest pass in the average of that share
_GROWTH = 1.01  # of the least time of an input a pass: the machine may have become slower
_KEPT, _ENOUGH = 9, 3  # passes of one input: kept, and needed for an estimate


class Anticipation:
    """The waiting of one queue's passes. Not thread-safe: the queue's Batcher holds a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock = clock
        self._singles: deque[float] = deque(maxlen=_KEPT)  # seconds of passes of one input
        self._least = 0.0  # seconds of an input in the fastest passes of several
        self._prompt_share = 0.0  # of answered requests, those that came back within the fixed time
        self._ended = 0.0  # when the latest pass ended
        self._answered = self._arrived = self._prompt = 0  # requests, since then

    @property
    def fixed(self) -> float:
        """Seconds that a pass takes beside its inputs; 0 until enough have been measured."""
        singles = self._singles
        return max(0.0, median(singles) - self._least) if len(singles) >= _ENOUGH else 0.0

    def arrived(self) -> None:
        """A request has arrived."""
        self._arrived += 1
        self._prompt += self._clock() - self._ended <= self.fixed

    def passed(self, inputs: int, seconds: float, answered: int) -> None:
        """A pass has ended. answered: requests that it completed, whose callers do not know yet."""
        if self._answered:
            share = min(1.0, self._prompt / self._answered)
            self._prompt_share += _WEIGHT * (share - self._prompt_share)
        if inputs == 1:
            self._singles.append(seconds)
        else:
            least = self._least * _GROWTH or seconds
            self._least = min(least, seconds / inputs)
        self._ended = self._clock()
        self._answered, self._arrived, self._prompt = answered, 0, 0

    def patience(self, here: int) -> float:
        """Seconds for which a pass should wait for other inputs than the `here` that are waiting;
        not above 0 if it should not. To be asked again after each arrival.
        """
        expected = self._answered - self._arrived
        if here <= 0 or expected <= 0 or self._prompt_share < _PROMPT:
            return 0.0
        return min(self._ended + self.fixed - self._clock(), self.fixed * expected / here)
