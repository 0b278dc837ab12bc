"""Pauses between attempts."""

from __future__ import annotations

from score.concurrency.backoff import pause_after


def test_each_pause_is_twice_as_long_up_to_the_longest() -> None:
    assert [pause_after(failures, 60) for failures in (1, 2, 3, 6, 7, 8, 10_000)] == [
        *(1, 2, 4, 32, 60, 60, 60)
    ]
