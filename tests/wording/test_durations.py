"""Times in messages."""

from __future__ import annotations

import pytest

from score.wording.durations import duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (100_000, "27 h 46 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
