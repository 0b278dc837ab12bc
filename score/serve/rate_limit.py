"""Requests a minute of each key: a token bucket, full at the start, that refills evenly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from score.serve.keys import Key


class _Bucket(NamedTuple):
    tokens: float
    at: float  # when it held them, seconds


class RateLimit:
    """Counts the requests of each key, in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def wait(self, key: Key) -> float:
        """Seconds until a key may send its next request; 0 if it may now, which is then counted."""
        if key.per_minute is None:
            return 0.0
        now, rate = self._clock(), key.per_minute / 60
        before = self._buckets.get(key.sha256, _Bucket(key.per_minute, now))
        tokens = min(float(key.per_minute), before.tokens + (now - before.at) * rate)
        allowed = tokens >= 1
        self._buckets[key.sha256] = _Bucket(tokens - allowed, now)
        return 0.0 if allowed else (1 - tokens) / rate
