"""How long to pause before something that failed is tried again."""

from __future__ import annotations

_MOST_DOUBLINGS = 10  # the power of a large number would be too large for a float


def pause_after(failures: int, longest: float) -> float:
    """Seconds after so many failures in a row, at least one: 1, then twice as long each time, and
    never more than `longest`."""
    return min(2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest)
