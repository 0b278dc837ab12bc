"""Turns: one item of each owner, whatever the number of others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import pytest

from score.concurrency.cancellation import Cancellation
from score.concurrency.turns import FairCondition, FairExecutor, Turns
from score.errors import Cancelled, FetchTimeout
from score.fetch.deadline import Deadline
from score.fetch.host_concurrency import Host
from score.fetch.slots import Slots


def drained(turns: Turns[str]) -> list[str]:
    items = []
    while (item := turns.next()) is not None:
        items.append(item)
    return items


def test_owners_take_turns_and_keep_their_own_order() -> None:
    turns: Turns[str] = Turns()
    for number in range(4):
        turns.add("large", f"l{number}")
    turns.add("small", "s0")
    turns.add("other", "o0")
    turns.add("other", "o1")
    assert drained(turns) == ["l0", "s0", "o0", "l1", "o1", "l2", "l3"]
    assert not turns


def test_an_owner_that_was_served_goes_behind_those_that_wait() -> None:
    turns: Turns[str] = Turns()
    turns.add("a", "a0")
    turns.add("b", "b0")
    assert turns.next() == "a0"
    turns.add("a", "a1")
    turns.add("c", "c0")
    assert drained(turns) == ["b0", "a1", "c0"]


def test_an_item_may_leave() -> None:
    turns: Turns[str] = Turns()
    for item in ("a0", "a1"):
        turns.add("a", item)
    turns.add("b", "b0")
    turns.remove("a", "a0")
    turns.remove("b", "b0")
    turns.remove("b", "never there")
    turns.remove("nobody", "x")
    assert drained(turns) == ["a1"]


class Held:
    """An executor of one thread that is busy until released, and the order of what it ran."""

    def __init__(self) -> None:
        self.executor, self.ran = FairExecutor(1, "test"), list[str]()
        self.release, begun = threading.Event(), threading.Event()
        self.executor.submit("first", lambda: (begun.set(), self.release.wait(10)))
        assert begun.wait(10)

    def submit(self, owner: str, name: str):  # type: ignore[no-untyped-def]
        return self.executor.submit(owner, lambda: self.ran.append(name))


def test_jobs_run_by_turns() -> None:
    held = Held()
    futures = [held.submit("large", f"l{number}") for number in range(100)]
    futures += [held.submit("small", "s0")]
    held.release.set()
    for future in futures:
        future.result(10)
    assert held.ran[:3] == ["l0", "s0", "l1"]
    assert held.ran[2:] == [f"l{number}" for number in range(1, 100)]


def test_a_cancelled_job_neither_runs_nor_takes_a_turn() -> None:
    held = Held()
    gone = [held.submit("gone", f"g{number}") for number in range(5)]
    stays = [held.submit("stays", f"s{number}") for number in range(2)]
    for future in gone:
        assert future.cancel()
    with pytest.raises(CancelledError):
        gone[0].result()
    held.release.set()
    for future in stays:
        future.result(10)
    assert held.ran == ["s0", "s1"]
    assert not held.executor._turns


def test_a_job_that_fails_fails_its_future_alone() -> None:
    executor = FairExecutor(1, "test")
    failing = executor.submit("a", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    assert executor.submit("a", lambda: 7).result(10) == 7


# -- slots ---------------------------------------------------------------------------------------


def served_in_order(slot: Any, waiting: Turns[Any]) -> list[str]:
    """Whose rows get a slot, one at a time: three calls with 20, 1 and 2 rows, in this order."""
    order: list[str] = []
    calls = {name: Cancellation() for name in ("large", "small", "other")}

    def row(name: str) -> None:
        with slot(Deadline(30, None, calls[name])):
            order.append(name)

    def count() -> int:
        return sum(map(len, waiting._waiting.values()))

    threads = []
    with slot(Deadline(30)):
        for name in ["large"] * 20 + ["small"] + ["other"] * 2:
            threads.append(threading.Thread(target=row, args=[name], daemon=True))
            threads[-1].start()
            while count() < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join(20)
    return order


WANTED = ["large", "small", "other", "large", "other", *["large"] * 18]


def test_download_slots_are_shared_by_turns() -> None:
    slots = Slots(1)
    assert served_in_order(slots.slot, slots._changed._turns) == WANTED
    assert slots._free == 1


def test_a_hosts_slots_are_shared_by_turns() -> None:
    host = Host(1)
    assert served_in_order(host.slot, host._changed._turns) == WANTED


def test_a_row_that_comes_later_waits_behind_those_that_wait() -> None:
    """A thread that was notified has not run yet: nobody may take its slot before it."""
    slots, late = Slots(1), list[bool]()
    call = Cancellation()

    def waits() -> None:
        with slots.slot(Deadline(30, None, call)):
            late.append(slots._changed.is_waited_for)

    threads = [threading.Thread(target=waits, daemon=True) for _ in range(2)]
    with slots.slot(Deadline(30)):
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(slots._changed._turns._waiting.get(call, ())) < number:
                time.sleep(0.001)
    with slots.slot(Deadline(30)):
        assert late, "one of them was before"
    for thread in threads:
        thread.join(20)
    assert len(late) == 2


@pytest.mark.parametrize("kind", [Slots, Host])
def test_a_call_that_ends_wakes_its_own_rows_alone(kind: Any) -> None:
    shared, woken = kind(1), list[str]()
    calls = {name: Cancellation() for name in ("stays", "ends")}
    wait = shared._changed.wait

    def waits(owner: Any, timeout: float | None = None) -> bool:
        is_notified: bool = wait(owner, timeout)
        woken.append(next(name for name, call in calls.items() if call is owner))
        return is_notified

    shared._changed.wait = waits

    def row(name: str) -> None:
        with suppress(Cancelled), shared.slot(Deadline(30, None, calls[name])):
            pass

    threads = []
    with shared.slot(Deadline(30)):
        for name in ["stays"] * 5 + ["ends"] * 5:
            threads.append(threading.Thread(target=row, args=[name], daemon=True))
            threads[-1].start()
            while sum(map(len, shared._changed._turns._waiting.values())) < len(threads):
                time.sleep(0.001)
        calls["ends"].cancel()
        for thread in threads[5:]:
            thread.join(20)
        assert woken == ["ends"] * 5
    for thread in threads:
        thread.join(20)
    assert woken == ["ends"] * 5 + ["stays"] * 5


def test_a_wait_that_times_out_leaves_its_turn() -> None:
    slots = Slots(1)
    with slots.slot(Deadline(30)):
        hurried = Deadline(30, until=time.monotonic() + 0.01)
        with pytest.raises(FetchTimeout, match="the request's time"), slots.slot(hurried):
            pytest.fail("let in")
        assert not slots._changed.is_waited_for
    with slots.slot(Deadline(30)):
        pass


def test_all_who_wait_may_be_woken() -> None:
    """And more may be notified than wait: nobody who comes later is owed a notification."""
    condition, woken = FairCondition(), threading.Semaphore(0)

    def wait() -> None:
        with condition:
            if condition.wait(object(), 20):
                woken.release()

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while len(condition._turns._waiting) < 5 and time.monotonic() < end:
        time.sleep(0.005)
    with condition:
        condition.notify_all()
    for _ in threads:
        assert woken.acquire(timeout=20)
    with condition:
        condition.notify(10**9)
        assert not condition.wait(object(), 0.01)
