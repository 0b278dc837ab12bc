"""How long requests to each host take."""

from __future__ import annotations

import pytest

from score.errors import BlockedHost
from score.fetch import host_times
from score.fetch.host_times import HostTime, HostTimes
from score.fetch.http_status import said, status_in
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(host_times, "monotonic", clock)
    return clock


def ask(times: HostTimes, clock: Clock, host: str, seconds: float) -> None:
    with times.timed(host):
        clock.now += seconds


def test_times_add_up_until_they_are_taken(clock: Clock) -> None:
    times = HostTimes()
    for host, seconds in (("a", 1), ("slow", 5), ("a", 2), ("b", 0.5)):
        ask(times, clock, host, seconds)
    assert list(times.take(2).items()) == [("slow", HostTime(1, 5, 5)), ("a", HostTime(2, 3, 2))]
    ask(times, clock, "b", 1)
    assert times.take(2) == {"b": HostTime(1, 1, 1)}


def test_a_request_that_fails_has_taken_time_too(clock: Clock) -> None:
    times = HostTimes()
    with pytest.raises(TimeoutError), times.timed("dead"):
        clock.now += 10
        raise TimeoutError
    assert times.take(1) == {"dead": HostTime(1, 10, 10)}


def test_what_is_refused_before_a_request_counts_as_none(clock: Clock) -> None:
    times = HostTimes()
    with pytest.raises(BlockedHost), times.timed("inside"):
        clock.now += 10
        raise BlockedHost("leads to no public address")
    assert times.take(1) == {}


def test_of_too_many_hosts_the_slow_ones_are_kept(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_times, "_KEPT", 10)
    times = HostTimes()
    for number in range(1000):
        ask(times, clock, f"h{number}", 100 if number == 3 else 1 + number / 1000)
        assert len(times._times) <= 10
    assert next(iter(times.take(20))) == "h3"


@pytest.mark.parametrize("status", [403, 404, 429, 500, 599])
def test_a_status_is_read_back_from_its_message(status: int) -> None:
    message = said("http://x.example/answered", status)
    assert status_in(message) == status_in(f"image: {message}") == str(status)


@pytest.mark.parametrize(
    "message",
    [
        "http://x.example/ did not answer in time",
        "the proxy answered 502 for http://x.example/",
        "image: 12 bytes that are no image: http://x answered 404",
    ],
)
def test_other_messages_have_no_status(message: str) -> None:
    assert status_in(message) == ""
