"""How many downloads a host gets at a time, under a clock that the tests move on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from score.errors import FetchFailed, FetchTimeout
from score.fetch import host_concurrency
from score.fetch.deadline import Deadline
from score.fetch.host_concurrency import START, Host, Hosts
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(host_concurrency, "_now", clock)
    return clock


@contextmanager
def full(host: Host) -> Iterator[None]:
    """All of a host's places are taken."""
    with ExitStack() as stack:
        for _ in range(host.limit):
            stack.enter_context(host.slot(Deadline(10)))
        yield


def answers(host: Host, clock: Clock, seconds: float, count: int = 1) -> None:
    for _ in range(count):
        with full(host):
            host.answered(clock.now - seconds)


def test_a_fast_host_gets_more_up_to_the_most(clock: Clock) -> None:
    host = Host(64)
    assert host.limit == START
    answers(host, clock, 0.05, 8)
    assert host.limit == START + 8, "doubled by a round of answers"
    answers(host, clock, 0.05, 60)
    assert host.limit == 64


@pytest.mark.parametrize("most", [1, 3, 8])
def test_the_most_may_be_less_than_the_start(clock: Clock, most: int) -> None:
    host = Host(most)
    assert host.limit == most
    answers(host, clock, 0.05, 10)
    answers(host, clock, 9.0, 10)
    assert host.limit == most


def test_what_is_not_used_does_not_grow(clock: Clock) -> None:
    host = Host(64)
    for _ in range(100):
        with host.slot(Deadline(10)):
            host.answered(clock.now - 0.05)
    assert host.limit == START


def test_a_host_that_becomes_slow_gets_fewer_again(clock: Clock) -> None:
    host = Host(64)
    answers(host, clock, 0.05, 20)
    grown = host.limit
    answers(host, clock, 0.2, 1)  # within three times the quickest and 0.1 s
    assert host.limit == grown + 1
    answers(host, clock, 0.3, 5)
    assert host.limit == grown - 4
    answers(host, clock, 0.3, 100)
    assert host.limit == START


def test_a_host_that_is_always_slow_is_not_held_to_be_slower(clock: Clock) -> None:
    host = Host(64)
    answers(host, clock, 5.0, 100)
    assert host.limit == 64


def test_shedding_halves_once_a_round(clock: Clock) -> None:
    host = Host(64)
    answers(host, clock, 0.05, 100)
    sent = clock.now
    clock.now += 0.1
    for _ in range(64):
        host.shed(sent)
    assert host.limit == 32
    sent = clock.now
    clock.now += 0.1
    host.shed(sent)
    assert host.limit == 16
    for _ in range(10):
        clock.now += 1
        host.shed(clock.now)
    assert host.limit == 1, "and never less"


def test_after_shedding_a_round_adds_one(clock: Clock) -> None:
    host = Host(16)
    host.shed(clock.now)
    assert host.limit == START // 2
    answers(host, clock, 0.05, START // 2 + 1)
    assert host.limit == START // 2 + 1
    answers(host, clock, 0.05, 200)
    assert host.limit == 16


def test_what_led_to_a_pause_is_not_tried_again_for_ten_times_as_long(clock: Clock) -> None:
    host = Host(64)
    answers(host, clock, 0.05, 8)
    assert host.limit == 16
    host.shed(clock.now, pause=1)
    clock.now += 1
    answers(host, clock, 0.05, 300)
    assert host.limit == 15
    clock.now += 9
    answers(host, clock, 0.05, 16)
    assert host.limit == 16


@pytest.mark.parametrize("capacity", [1, 4, 16])
def test_a_host_that_asks_for_pauses_is_used_nearly_to_its_capacity(
    clock: Clock, capacity: int
) -> None:
    """In rounds of 0.05 s: as many as it takes are answered, the others get a `Retry-After`."""
    host = Host(64, longest_pause=15)
    end = clock.now + 60
    answered = refused = 0
    while clock.now < end:
        clock.now = max(clock.now, host._paused_until)
        began = clock.now
        with full(host):
            asked = host.limit
            for _ in range(asked - capacity):
                host.shed(began, pause=1)
                refused += 1
            clock.now += 0.05
            for _ in range(min(asked, capacity)):
                host.answered(began)
                answered += 1
    assert answered > 0.75 * 60 / 0.05 * capacity
    assert refused < answered / 50


def test_a_pause_holds_for_every_row(clock: Clock) -> None:
    host = Host(64)
    host.shed(clock.now, pause=20)
    with (
        pytest.raises(FetchFailed, match="no requests for another 20 s") as caught,
        host.slot(Deadline(10)),
    ):
        pytest.fail("let in")
    assert caught.value.retryable
    clock.now += 20
    with host.slot(Deadline(10)):
        pass


def test_a_pause_within_the_rows_time_is_waited_for() -> None:
    host = Host(64)
    host.shed(time.monotonic(), pause=0.3)
    began = time.monotonic()
    with host.slot(Deadline(10)):
        assert 0.2 < time.monotonic() - began < 5


def test_a_pause_counts_against_the_rows_time() -> None:
    host = Host(64)
    host.shed(time.monotonic(), pause=0.3)
    deadline = Deadline(10)
    with host.slot(deadline):
        assert deadline.left() < 9.8


@pytest.mark.parametrize("pause", [3600.0, float("inf")])
def test_no_pause_is_longer_than_the_longest(clock: Clock, pause: float) -> None:
    host = Host(64, longest_pause=15)
    host.shed(clock.now, pause)
    with pytest.raises(FetchFailed, match="another 15 s"), host.slot(Deadline(10)):
        pytest.fail("let in")
    clock.now += 15
    with host.slot(Deadline(10)):
        pass


def test_a_shorter_pause_does_not_end_a_longer_one(clock: Clock) -> None:
    host = Host(64)
    host.shed(clock.now, 30)
    host.shed(clock.now, 0)
    with pytest.raises(FetchFailed, match="another 30 s"), host.slot(Deadline(10)):
        pytest.fail("let in")


def test_all_rows_get_in_after_a_pause() -> None:
    """None of those that wait is forgotten, though what woke them came during the pause."""
    host = Host(2)
    most = running = 0
    lock = threading.Lock()

    def row() -> None:
        nonlocal most, running
        with host.slot(Deadline(30)):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.005)
            with lock:
                running -= 1

    with full(host):
        threads = [threading.Thread(target=row, daemon=True) for _ in range(40)]
        for thread in threads:
            thread.start()
        host.shed(time.monotonic(), pause=0.2)
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 1, "the halved number"


def test_waiting_for_a_place_ends_with_the_request_and_not_with_the_row() -> None:
    host = Host(1)
    with full(host):
        hurried = Deadline(0.01, until=time.monotonic() + 0.2)
        with pytest.raises(FetchTimeout, match="the request's time"), host.slot(hurried):
            pytest.fail("let in")
        threading.Timer(0.2, lambda: host.shed(time.monotonic())).start()
    deadline = Deadline(5)
    with host.slot(deadline):
        assert deadline.left() > 4


def test_a_row_that_gives_up_passes_on_what_woke_it() -> None:
    """The end of one download wakes one row; here that row fails, and so must all behind it."""
    host = Host(1)
    failed: list[str] = []

    def row() -> None:
        try:
            with host.slot(Deadline(5)):
                failed.append("let in")
        except FetchFailed as error:
            failed.append(error.message)

    threads = [threading.Thread(target=row, daemon=True) for _ in range(10)]
    with full(host):
        for thread in threads:
            thread.start()
        while len(host._changed._turns._waiting) < 10:
            time.sleep(0.01)
        host.shed(time.monotonic(), pause=30)
    for thread in threads:
        thread.join(20)
    assert len(failed) == 10
    assert all("no requests for another" in message for message in failed)


def test_rows_that_waited_out_a_pause_all_get_in() -> None:
    """They wait for the same end, and none of them for another that waits for it, too."""
    host, entered = Host(8), threading.Semaphore(0)

    def row() -> None:
        with host.slot(Deadline(20)):
            entered.release()

    host.shed(time.monotonic(), pause=0.3)
    threads = [threading.Thread(target=row, daemon=True) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


# -- all hosts ----------------------------------------------------------------------------------


def shed(known: Hosts, name: str) -> None:
    with known.slot(name, Deadline(10)) as host:
        host.shed(host_concurrency._now())


def test_each_host_has_its_own_number(clock: Clock) -> None:
    known = Hosts(64, longest_pause=15)
    shed(known, "a.example")
    assert known.limit("a.example") == START // 2
    assert known.limit("b.example") == START


def test_a_host_is_remembered_for_a_minute(clock: Clock) -> None:
    known = Hosts(64, longest_pause=15)
    shed(known, "a.example")
    clock.now += 59
    with known.slot("a.example", Deadline(10)) as host:
        assert host.limit == START // 2
    clock.now += 60
    with known.slot("a.example", Deadline(10)) as host:
        assert host.limit == START


def test_a_host_in_use_is_not_forgotten(clock: Clock) -> None:
    known = Hosts(64, longest_pause=15)
    with known.slot("a.example", Deadline(10)) as host:
        clock.now += 1000
        for number in range(3000):
            shed(known, f"{number}.example")
        with known.slot("a.example", Deadline(10)) as same:
            assert same is host


def test_no_more_than_a_thousand_hosts_are_remembered(clock: Clock) -> None:
    known = Hosts(64, longest_pause=15)
    for number in range(5000):
        shed(known, f"{number}.example")
    assert len(known._hosts) <= 1000
