"""A call that ends takes everything along that waits for it, wherever that is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from score.concurrency.cancellation import Cancellation
from score.errors import Cancelled, RequestTimeout, RowError
from score.fetch import connections
from score.fetch.byte_budget import ByteBudget
from score.fetch.deadline import Deadline
from score.fetch.fetcher import Fetcher
from score.settings import Settings
from tests.support.hostile import PNG, Authority, Server, drip_handshake

LONG = 60  # seconds, which no test waits for


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def fetcher(**changes: Any) -> Fetcher:
    settings: dict[str, Any] = {
        "allow_hosts": ("127.0.0.1",),
        "read_timeout": LONG,
        "row_deadline": LONG,
        "connect_timeout": LONG,
    }
    return Fetcher(Settings(**{**settings, **changes}))


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + LONG / 2
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def ended(fetching: Future[Any]) -> None:
    with pytest.raises(Cancelled):
        fetching.result(LONG / 2)


# -- the object itself ---------------------------------------------------------------------------


def test_the_first_reason_stays() -> None:
    call = Cancellation(LONG)
    call.check()
    call.cancel()
    call.expire()
    assert call.is_cancelled
    with pytest.raises(Cancelled):
        call.check()


def test_the_nearest_limit_counts() -> None:
    call = Cancellation()
    assert call.left is None
    call.limit(0)
    assert call.left is None
    call.limit(LONG)
    call.limit(2 * LONG)
    assert call.left is not None
    assert call.left <= LONG
    call.limit(1e-9)
    assert call.left == 0
    with pytest.raises(RequestTimeout, match="within 1e-09 s"):
        call.check()


def test_each_wait_is_interrupted_once_and_only_while_it_lasts() -> None:
    call, heard = Cancellation(), []
    with call.interrupting(lambda: heard.append("over")):
        pass

    def wait() -> None:
        heard.append("here")

    with pytest.raises(Cancelled), call.interrupting(wait), call.interrupting(wait):
        call.cancel()
        call.cancel()
        raise OSError("the socket was shut down")
    assert heard == ["here"]
    with pytest.raises(Cancelled), call.interrupting(wait):
        pytest.fail("a call that has ended begins no wait")
    assert not call._interrupts


def test_an_error_of_a_call_that_goes_on_is_itself() -> None:
    with pytest.raises(OSError, match="broken"), Cancellation().interrupting(print):
        raise OSError("broken")


def test_a_sleeper_is_woken(threads: ThreadPoolExecutor) -> None:
    call = Cancellation()
    sleeping = threads.submit(call.sleep, LONG)
    until(lambda: call._interrupts)
    call.cancel()
    ended(sleeping)


# -- downloads -----------------------------------------------------------------------------------

DRIPS = ("/drip-body", "/drip-chunks", "/drip-headers", "/drip-continues")


@pytest.mark.parametrize("route", [*DRIPS, "/silence", "/silence-in-body"])
def test_a_download_ends_at_once(server: Server, threads: ThreadPoolExecutor, route: str) -> None:
    call = Cancellation()
    fetching = threads.submit(fetcher().fetch, server.url(route), None, None, call)
    until(lambda: server.requests[route])
    call.cancel()
    ended(fetching)
    if route in DRIPS:  # the others do not look at their connection
        until(lambda: not server._open)


@pytest.mark.parametrize("route", DRIPS)
def test_a_download_over_tls_ends_at_once(
    tmp_path: Path, threads: ThreadPoolExecutor, route: str
) -> None:
    authority, call = Authority(tmp_path), Cancellation()
    with Server(tls=authority.context()) as server:
        fetching = fetcher(ca_bundle=str(authority.file))
        fetched = threads.submit(fetching.fetch, server.url(route), None, None, call)
        until(lambda: server.requests[route])
        call.cancel()
        ended(fetched)
        until(lambda: not server._open)


def test_a_handshake_ends_at_once(threads: ThreadPoolExecutor) -> None:
    call = Cancellation()
    with Server(says=drip_handshake) as server:
        url = server.url("/", scheme="https")
        fetching = threads.submit(fetcher().fetch, url, None, None, call)
        until(lambda: server.connections)
        call.cancel()
        ended(fetching)
        until(lambda: not server._open)


def test_a_look_up_is_abandoned(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, over = threading.Event(), threading.Event()
    monkeypatch.setattr(
        connections.socket, "getaddrinfo", lambda *_, **__: (asked.set(), over.wait(LONG), [])[2]
    )
    call = Cancellation()
    fetching = threads.submit(fetcher().fetch, "http://example.test/", None, None, call)
    assert asked.wait(LONG)
    call.cancel()
    ended(fetching)
    over.set()


def test_a_kept_connection_serves_other_calls_afterwards(server: Server) -> None:
    """What interrupted a finished download does not reach those that use its connection next."""
    fetching, first = fetcher(), Cancellation()
    assert fetching.fetch(server.url("/good.png"), None, None, first) == PNG
    first.cancel()
    assert fetching.fetch(server.url("/good.png"), None, None, Cancellation()) == PNG
    assert server.connections == 1


# -- waits before and between downloads ----------------------------------------------------------


@pytest.mark.parametrize("changes", [{"fetch_workers": 1}, {"per_host": 1}])
def test_rows_that_wait_for_a_slot_leave_without_being_served(
    server: Server, threads: ThreadPoolExecutor, changes: dict[str, int]
) -> None:
    fetching, other, call = fetcher(**changes), Cancellation(), Cancellation()
    holding = threads.submit(fetching.fetch, server.url("/held.png"), None, None, other)
    until(lambda: server.requests["/held.png"])
    waiting = [
        threads.submit(fetching.fetch, server.url("/good.png"), None, None, call) for _ in range(8)
    ]
    until(lambda: call._interrupts)
    call.cancel()
    for each in waiting:
        ended(each)
    server.release.set()
    assert holding.result(LONG) == PNG
    assert not server.requests["/good.png"]
    assert fetching.fetch(server.url("/good.png")) == PNG, "the slot is free"


def test_a_row_that_waits_for_bytes_leaves(threads: ThreadPoolExecutor) -> None:
    budget, call = ByteBudget(10), Cancellation()
    with budget.holding():
        budget.reserve(10, Deadline(LONG))
        waiting = threads.submit(budget.reserve, 1, Deadline(LONG, None, call))
        until(lambda: call._interrupts)
        call.cancel()
        ended(waiting)


@pytest.mark.parametrize("path", ["/status?is=503", "/busy?after=20", "/to-later?after=20"])
def test_a_row_that_pauses_leaves(server: Server, threads: ThreadPoolExecutor, path: str) -> None:
    call = Cancellation()
    fetching = fetcher(retry_wait=20, row_deadline=LONG)
    waiting = threads.submit(fetching.fetch, server.url(path), None, None, call)
    until(lambda: server.requests.total() and not server._at_once and call._interrupts)
    call.cancel()
    ended(waiting)
    assert server.requests.total() == 1


def test_a_host_that_asked_for_a_pause_holds_up_no_call_that_has_ended(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    fetching, call = fetcher(max_retries=0), Cancellation()
    with pytest.raises(RowError):
        fetching.fetch(server.url("/busy?after=20"))
    waiting = threads.submit(fetching.fetch, server.url("/good.png"), None, None, call)
    until(lambda: call._interrupts)
    call.cancel()
    ended(waiting)
    assert not server.requests["/good.png"]


def test_a_call_that_has_timed_out_begins_nothing(server: Server) -> None:
    with pytest.raises(RequestTimeout):
        fetcher().fetch(server.url("/good.png"), None, None, Cancellation(1e-9))
    assert not server.connections
