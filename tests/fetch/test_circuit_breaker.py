"""A host that does not answer is not asked for a while, by rows of batch jobs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from score.concurrency.cancellation import Cancellation
from score.errors import Cancelled, FetchFailed, FetchTimeout, HostDown, RowError
from score.fetch import address_rule, circuit_breaker, host_concurrency
from score.fetch.circuit_breaker import FAILURES, LONGEST, SHORTEST, CircuitBreaker
from score.fetch.deadline import Deadline
from score.fetch.fetcher import Fetcher
from score.fetch.host_concurrency import Host, Hosts
from score.settings import Settings
from tests.support.clock import Clock
from tests.support.hostile import PNG, Network, Server, dead_port

LONG = 20.0


def opened(breaker: CircuitBreaker, now: float) -> CircuitBreaker:
    for _ in range(FAILURES - 1):
        assert not breaker.failed(now)
        assert breaker.admits(now)
    assert breaker.failed(now)
    return breaker


# -- the breaker alone --------------------------------------------------------------------------


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = opened(CircuitBreaker(), 100.0)
    assert not breaker.admits(100.0)
    assert not breaker.admits(100.0 + SHORTEST - 0.1)
    assert breaker.admits(100.0 + SHORTEST)
    error = breaker.error(100.0)
    assert error.code == "fetch_failed"
    assert error.retryable
    assert f"did not answer {FAILURES} times in a row" in error.message
    assert f"not asked for another {SHORTEST:.0f} s" in error.message


def test_an_answer_between_failures_keeps_it_closed() -> None:
    breaker = CircuitBreaker()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            assert not breaker.failed(0.0)
        assert not breaker.answered()
    assert breaker.admits(0.0)


def test_one_row_tries_after_a_pause() -> None:
    breaker = opened(CircuitBreaker(), 0.0)
    assert breaker.enter()
    assert not breaker.admits(1000.0), "while another tries"
    assert "while one row tries it" in breaker.error(1000.0).message
    breaker.leave()
    assert breaker.admits(1000.0), "the row was given up"


def test_its_answer_closes_it() -> None:
    breaker = opened(CircuitBreaker(), 0.0)
    assert breaker.enter()
    assert breaker.answered()
    breaker.leave()
    assert breaker.admits(0.0)
    assert not breaker.enter()
    opened(breaker, 0.0)  # as if it had never been open
    assert breaker.admits(SHORTEST)


def test_pauses_double_up_to_the_longest() -> None:
    breaker, now = opened(CircuitBreaker(), 0.0), 0.0
    pauses = []
    for _ in range(8):
        pauses.append(breaker.left(now))
        now += pauses[-1]
        breaker.enter()
        assert breaker.failed(now)
        breaker.leave()
    assert pauses[:3] == [SHORTEST, 2 * SHORTEST, 4 * SHORTEST]
    assert pauses[-1] == LONGEST == max(pauses)


def test_late_failures_do_not_lengthen_a_pause() -> None:
    """Of requests that were sent before."""
    breaker = opened(CircuitBreaker(), 0.0)
    for _ in range(100):
        assert not breaker.failed(1.0)
    assert breaker.admits(SHORTEST)


# -- rows that wait for a host ------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(host_concurrency, "_now", clock)
    monkeypatch.setattr(host_concurrency, "_LOOK", 0.01)
    return clock


def in_the_way() -> bool:
    return True


def alone() -> bool:
    return False


def fail(host: Host, times: int = FAILURES) -> None:
    for _ in range(times):
        host.failed()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_rows_that_wait_for_a_slot_fail_when_it_opens(clock: Clock) -> None:
    host = Host(1)

    def row() -> None:
        with host.slot(Deadline(LONG), in_the_way):
            pytest.fail("let in")

    with ThreadPoolExecutor(20) as threads, host.slot(Deadline(LONG), in_the_way):
        rows = [threads.submit(row) for _ in range(20)]
        until(lambda: sum(map(len, host._changed._turns._waiting.values())) == 20)
        fail(host)
        for waiting in rows:
            assert isinstance(waiting.exception(LONG), HostDown)


def test_rows_fail_at_once_while_one_tries(clock: Clock) -> None:
    host = Host(64)
    fail(host)
    clock.now += SHORTEST
    with host.slot(Deadline(LONG), in_the_way):
        for _ in range(3):
            with pytest.raises(HostDown), host.slot(Deadline(LONG), in_the_way):
                pytest.fail("let in")
    with host.slot(Deadline(LONG), in_the_way):  # the other one has ended without an outcome
        host.succeeded(redirects=False)
        with host.slot(Deadline(LONG), in_the_way):
            pass


def test_rows_that_queue_fail_when_another_begins_to_try(clock: Clock) -> None:
    """The last slot is held by a row from before the pause; they must not wait for two."""
    host = Host(1)
    outcomes: list[object] = []
    trying, over = threading.Event(), threading.Event()

    def row() -> None:
        try:
            with host.slot(Deadline(LONG), in_the_way):
                trying.set()
                over.wait(LONG)
                outcomes.append("tried")
        except HostDown as error:
            outcomes.append(error)

    with ThreadPoolExecutor(5) as threads:
        with host.slot(Deadline(LONG), in_the_way):
            fail(host)
            clock.now += SHORTEST
            rows = [threads.submit(row) for _ in range(5)]
            until(lambda: sum(map(len, host._changed._turns._waiting.values())) == 5)
        assert trying.wait(LONG)
        until(lambda: len(outcomes) == 4)
        over.set()
        for waiting in rows:
            waiting.result(LONG)
    assert outcomes[-1] == "tried"


def test_rows_that_hold_nobody_up_wait_until_the_host_answers(clock: Clock) -> None:
    """A short outage of the only host of a table fails none of its rows."""
    host = Host(8)
    fail(host)
    entered: list[float] = []

    def row() -> None:
        with host.slot(Deadline(LONG), alone):
            entered.append(clock.now)
            host.succeeded(redirects=False)

    with ThreadPoolExecutor(20) as threads:
        rows = [threads.submit(row) for _ in range(20)]
        time.sleep(0.2)
        assert not entered
        clock.now += SHORTEST
        for waiting in rows:
            waiting.result(LONG)
    assert len(entered) == 20


def test_they_wait_no_longer_than_their_own_time(clock: Clock) -> None:
    host = Host(8)
    fail(host)
    began = time.monotonic()
    with pytest.raises(HostDown), host.slot(Deadline(0.2), alone):
        pytest.fail("let in")
    assert time.monotonic() - began >= 0.19


def test_they_fail_once_others_are_held_up(clock: Clock) -> None:
    host = Host(8)
    fail(host)
    looks = iter([False, False, False, True])
    with pytest.raises(HostDown), host.slot(Deadline(LONG), lambda: next(looks)):
        pytest.fail("let in")


def test_what_frees_a_slot_reaches_rows_of_requests(clock: Clock) -> None:
    """Though rows of batches, which wait for the host to come back, came before."""
    host = Host(1)
    with ThreadPoolExecutor(10) as threads:
        calls = [Cancellation() for _ in range(8)]

        def batch(call: Cancellation) -> None:
            with host.slot(Deadline(LONG, None, call), alone):
                pytest.fail("let in")

        def request() -> bool:
            with host.slot(Deadline(LONG)):
                return True

        with host.slot(Deadline(LONG)):
            rows = [threads.submit(batch, call) for call in calls]
            until(lambda: sum(map(len, host._changed._turns._waiting.values())) == 8)
            fail(host)
            asked = threads.submit(request)
            until(lambda: sum(map(len, host._changed._turns._waiting.values())) == 1)
        assert asked.result(LONG)
        for call in calls:
            call.cancel()
        for row in rows:
            assert isinstance(row.exception(LONG), Cancelled)


def test_rows_of_requests_are_let_in(clock: Clock) -> None:
    host = Host(8)
    fail(host)
    with host.slot(Deadline(LONG)):
        pass


def answered(hosts: Hosts, name: str, *, redirects: bool = False) -> None:
    with hosts.slot(name, Deadline(LONG), in_batch=True) as host:
        host.succeeded(redirects=redirects)


def test_only_other_hosts_that_answered_lately_are_held_up(clock: Clock) -> None:
    """A host that redirects to the one that is down is none."""
    hosts = Hosts(8, longest_pause=15)
    answered(hosts, "down.example")
    answered(hosts, "redirecting.example", redirects=True)
    with hosts.slot("down.example", Deadline(LONG), in_batch=True) as host:
        fail(host)
    began = time.monotonic()
    with pytest.raises(HostDown), hosts.slot("down.example", Deadline(0.1), in_batch=True):
        pytest.fail("let in")
    assert time.monotonic() - began >= 0.09, "alone"
    answered(hosts, "up.example")
    began = time.monotonic()
    with pytest.raises(HostDown), hosts.slot("down.example", Deadline(LONG), in_batch=True):
        pytest.fail("let in")
    assert time.monotonic() - began < LONG / 2


def test_rows_at_hosts_that_have_long_been_silent_are_in_doubt(clock: Clock) -> None:
    hosts = Hosts(8, longest_pause=15)
    slots = [hosts.slot(name, Deadline(LONG)) for name in ("a.example", "b.example", "b.example")]
    with slots[0] as host, slots[1], slots[2]:
        assert hosts.in_doubt() == 0
        clock.now += 1.1
        assert hosts.in_doubt() == 3
        host.succeeded(redirects=True)
        assert hosts.in_doubt() == 2
    assert hosts.in_doubt() == 0


# -- downloads ----------------------------------------------------------------------------------


def fetcher(**changes: object) -> Fetcher:
    settings = {
        "allow_hosts": ("127.0.0.1",),
        "read_timeout": 0.05,
        "max_retries": 0,
        "retry_wait": 0.01,
    }
    return Fetcher(Settings(**{**settings, **changes}))


def outcome(fetching: Fetcher, url: str, *, in_batch: bool = True) -> object:
    try:
        return fetching.fetch(url, in_batch=in_batch)
    except RowError as error:
        return error


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine stands for a public host, of whose failures messages say more."""
    monkeypatch.setattr(address_rule, "is_public", lambda ip: ip.is_loopback)


@pytest.fixture
def other(server: Server, network: Network) -> str:
    """The URL of an image by another name of the server, which counts as another host."""
    network.names["other.example"] = ["127.0.0.1"]
    return server.url("/good.png", host="other.example")


@pytest.mark.parametrize("route", ["/silence", "/silence-after-headers", "/silence-in-body"])
def test_a_silent_host_is_not_asked_again_for_a_while(
    server: Server, other: str, route: str
) -> None:
    fetching = fetcher()
    assert outcome(fetching, other) == PNG
    for _ in range(FAILURES):
        error = outcome(fetching, server.url(route))
        assert isinstance(error, RowError)
        assert not isinstance(error, HostDown)
    error = outcome(fetching, server.url("/good.png"))
    assert isinstance(error, HostDown)
    assert error.retryable
    assert server.requests[route] == FAILURES
    assert outcome(fetching, other) == PNG


def test_a_host_that_cannot_be_connected_to_is_not_asked_again(
    network: Network, other: str
) -> None:
    fetching = fetcher()
    assert outcome(fetching, other) == PNG
    url = f"http://127.0.0.1:{dead_port()}/x.png"
    network.tried.clear()
    outcomes = [type(outcome(fetching, url)) for _ in range(FAILURES + 2)]
    assert outcomes == [FetchFailed] * FAILURES + [HostDown] * 2
    assert len(network.tried) == FAILURES


def test_a_resolver_that_cannot_tell_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, network: Network, other: str
) -> None:
    fetching = fetcher()
    assert outcome(fetching, other) == PNG
    resolve, asked = socket.getaddrinfo, []

    def busy(host: str, *args: object, **more: object) -> list:
        if host != "lost.example":
            return resolve(host, *args, **more)
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "busy")

    monkeypatch.setattr(socket, "getaddrinfo", busy)
    for _ in range(FAILURES + 2):
        error = outcome(fetching, "http://lost.example/x.png")
    assert isinstance(error, HostDown)
    assert len(asked) == FAILURES


@pytest.mark.parametrize("route", ["/status?is=404", "/status?is=503", "/reset", "/garbage"])
def test_other_failures_are_answers(public: None, server: Server, other: str, route: str) -> None:
    """A host inside that breaks off looks as if it were down, so this one is public."""
    fetching = fetcher()
    assert outcome(fetching, other) == PNG
    for _ in range(2 * FAILURES):
        assert not isinstance(outcome(fetching, server.url(route)), HostDown)
    assert outcome(fetching, server.url("/good.png")) == PNG


def test_requests_of_a_server_ask_every_host(server: Server, other: str) -> None:
    """One client cannot keep the others from a host, by its own rows or by a batch's."""
    fetching = fetcher()
    assert outcome(fetching, other) == PNG
    for _ in range(2 * FAILURES):
        assert isinstance(outcome(fetching, server.url("/silence"), in_batch=False), RowError)
    assert outcome(fetching, server.url("/good.png")) == PNG, "not counted"
    for _ in range(2 * FAILURES):
        outcome(fetching, server.url("/silence"))
    assert isinstance(outcome(fetching, server.url("/good.png")), HostDown)
    assert outcome(fetching, server.url("/good.png"), in_batch=False) == PNG
    assert outcome(fetching, server.url("/good.png")) == PNG, "what answers is up"


def test_a_row_that_has_asked_keeps_its_own_error(public: None, server: Server, other: str) -> None:
    """HostDown tells the rows that were never tried."""
    fetching = fetcher(max_retries=8, row_deadline=LONG)
    assert outcome(fetching, other) == PNG
    error = outcome(fetching, server.url("/silence"))
    assert isinstance(error, FetchTimeout)
    assert server.requests["/silence"] == FAILURES
    assert isinstance(outcome(fetching, server.url("/silence")), HostDown)


def test_a_host_that_comes_back_is_found(
    server: Server, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "SHORTEST", 0.2)
    fetching = fetcher()
    assert outcome(fetching, other) == PNG
    for _ in range(FAILURES):
        outcome(fetching, server.url("/silence"))
    assert isinstance(outcome(fetching, server.url("/good.png")), HostDown)
    time.sleep(0.25)
    assert outcome(fetching, server.url("/good.png")) == PNG
    assert outcome(fetching, server.url("/good.png")) == PNG


def test_the_message_names_no_host_that_a_redirect_led_to(server: Server, network: Network) -> None:
    network.names |= {"other.example": ["127.0.0.1"], "secret.example": ["127.0.0.1"]}
    fetching = fetcher(allow_hosts=("127.0.0.0/8",))
    outcome(fetching, server.url("/good.png", host="other.example"))
    url = server.leading_to(server.url("/silence", host="secret.example"))
    for _ in range(FAILURES):
        outcome(fetching, url)
    error = outcome(fetching, url)
    assert isinstance(error, HostDown)
    assert "secret" not in str(error)
