"""A host that does not answer is left alone for a while (the circuit breaker pattern).

Theory of operation. A row of a host that is down costs one of the host's slots and a thread until
its time-out, three times over. In a table, one row in ten suffices to have every thread wait for
such a host. So, in batch jobs, after FAILURES requests in a row without an answer the breaker is
open: the host is not asked for a pause. Then one row asks, the probe; its failure opens the breaker
again, for twice as long, up to a bound. Any answer closes it.

What an answer is: anything that ends before its time-out, a 404 or an answer that breaks off, too.
Without one end requests that cannot be connected or whose answer does not come, or not to its end,
in time.

What becomes of the rows meanwhile is decided by `host_concurrency`: they fail at once where other
hosts have answered lately, which these rows would hold up. Else nobody is held up, and they wait
for the host as long as their own time allows: a short outage of the one host of a table must not
fail thousands of its rows.
"""

from __future__ import annotations

import math

from score.errors import FetchFailed, HostDown

FAILURES = 5  # requests in a row without an answer
SHORTEST, LONGEST = 5.0, 60.0  # seconds of a pause


class NotConnected(FetchFailed):
    """No connection to a server, or no address at the moment."""

    retryable = True


class CircuitBreaker:
    """Of one host, for batch jobs. Not thread-safe by itself: its Host holds a lock.

    Times are of one monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._pause = 0.0  # the latest; 0: closed
        self._until = -math.inf  # its end
        self._is_probed = False

    def admits(self, now: float) -> bool:
        """Whether a row may ask the host."""
        return not self._pause or (now >= self._until and not self._is_probed)

    def enter(self) -> bool:
        """A row that was admitted is about to ask; whether it is the probe."""
        self._is_probed = self._pause > 0
        return self._is_probed

    def leave(self) -> None:
        """The probe is over, be it that it has failed, succeeded or been given up."""
        self._is_probed = False

    def failed(self, now: float) -> bool:
        """A request has ended without an answer; whether that begins a pause."""
        self._failures += 1
        if self._failures < FAILURES or now < self._until:
            return False
        self._pause = min(max(SHORTEST, 2 * self._pause), LONGEST)
        self._until = now + self._pause
        return True

    def answered(self) -> bool:
        """A request was answered; whether that ends a pause."""
        was_open = self._pause > 0
        self._failures, self._pause, self._until = 0, 0.0, -math.inf
        return was_open

    def left(self, now: float) -> float:
        """Seconds until the end of the pause, 0 while the probe is under way."""
        return max(0.0, self._until - now)

    def error(self, now: float) -> HostDown:
        """Of a row that is not admitted."""
        left = math.ceil(self.left(now))
        when = f"for another {left} s" if left else "while one row tries it"
        return HostDown(
            f"the server did not answer {self._failures} times in a row, and is not asked {when}"
        )
