"""Names are looked up once for many rows, and each connection is judged by its address."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from score.concurrency.cancellation import Cancellation
from score.errors import BlockedHost, Cancelled, FetchFailed, FetchTimeout
from score.fetch import look_up
from score.fetch.deadline import Deadline
from score.fetch.fetcher import Fetcher
from score.fetch.look_up import LookUps, NoAddress
from score.settings import Settings
from tests.support.clock import Clock
from tests.support.hostile import PNG, Network, Server

LONG = 20.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, network: Network) -> Clock:
    """Moved on by tests. Addresses are kept, which other tests of downloads switch off."""
    clock = Clock()
    monkeypatch.setattr(look_up, "_now", clock)
    monkeypatch.setattr(look_up, "FRESH", 30.0)
    monkeypatch.setattr(look_up, "_ABSENT", 5.0)
    return clock


class Resolver:
    """Stands for `getaddrinfo`, and answers when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()
        self.answer: Callable[[], list] = lambda: [(2, 1, 6, "", ("1.1.1.1", 80))]
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, *_: object, **__: object) -> list:
        self.asked.append(host)
        self.released.wait(LONG)
        return self.answer()


def addresses(look_ups: LookUps, host: str = "a.example", seconds: float = LONG) -> list[str]:
    found = look_ups.addresses(host, 80, Deadline(LONG), seconds)
    return [address for *_, (address, *_) in found]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def waiting(look_ups: LookUps) -> int:
    """Rows that wait for a look-up of the first name."""
    (known,) = list(look_ups._known.values())[:1] or [None]
    return len(known.answer._done_callbacks) if known else 0


def test_rows_at_the_same_time_share_a_look_up(monkeypatch, clock) -> None:
    resolver, look_ups = Resolver(monkeypatch), LookUps()
    with ThreadPoolExecutor(50) as threads:
        rows = [threads.submit(addresses, look_ups) for _ in range(50)]
        wait_until(lambda: waiting(look_ups) == 50)
        resolver.released.set()
        assert [row.result(LONG) for row in rows] == [["1.1.1.1"]] * 50
    assert resolver.asked == ["a.example"]


def test_addresses_are_kept_for_half_a_minute(network, clock) -> None:
    network.names["a.example"] = [["1.1.1.1"], ["2.2.2.2"]]
    look_ups = LookUps()
    assert addresses(look_ups) == ["1.1.1.1"]
    clock.now += 29
    assert addresses(look_ups) == ["1.1.1.1"]
    clock.now += 1
    assert addresses(look_ups) == ["2.2.2.2"]
    assert network.asked == ["a.example"] * 2


def test_the_lack_of_an_address_is_kept_for_less(network, clock) -> None:
    look_ups = LookUps()
    for seconds in (0, 4, 1):
        clock.now += seconds
        with pytest.raises(NoAddress) as caught:
            addresses(look_ups, "nobody.example")
        assert not caught.value.is_temporary
    assert network.asked == ["nobody.example"] * 2


def test_a_resolver_that_cannot_tell_is_asked_again(monkeypatch, clock) -> None:
    def busy() -> list:
        raise socket.gaierror(socket.EAI_AGAIN, "busy")

    resolver, look_ups = Resolver(monkeypatch), LookUps()
    resolver.released.set()
    resolver.answer = busy
    for _ in range(2):
        with pytest.raises(NoAddress) as caught:
            addresses(look_ups)
        assert caught.value.is_temporary
    assert len(resolver.asked) == 2


def test_where_no_thread_can_be_started_the_next_row_asks_again(
    monkeypatch, network, clock
) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    network.names["a.example"] = ["1.1.1.1"]
    look_ups = LookUps()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        with pytest.raises(NoAddress) as caught:
            addresses(look_ups)
    assert caught.value.is_temporary
    assert addresses(look_ups) == ["1.1.1.1"]


def test_a_name_that_no_resolver_takes_has_no_address(monkeypatch, clock) -> None:
    def unspellable() -> list:
        raise UnicodeError("label too long")

    resolver, look_ups = Resolver(monkeypatch), LookUps()
    resolver.released.set()
    resolver.answer = unspellable
    with pytest.raises(NoAddress) as caught:
        addresses(look_ups)
    assert not caught.value.is_temporary


def test_a_look_up_that_hangs_keeps_only_the_rows_of_its_time(monkeypatch, clock) -> None:
    """Whoever comes later asks anew; an answer that comes late after all is of use."""
    resolver, look_ups = Resolver(monkeypatch), LookUps()
    with pytest.raises(FetchTimeout, match="took too long"):
        addresses(look_ups, seconds=0.05)
    clock.now += 1
    with pytest.raises(FetchTimeout, match="took too long"):
        addresses(look_ups, seconds=0.05)
    assert len(resolver.asked) == 2
    resolver.released.set()
    wait_until(lambda: all(known.answer.done() for known in look_ups._known.values()))
    assert addresses(look_ups) == ["1.1.1.1"]
    assert len(resolver.asked) == 2


def test_a_late_failure_does_not_replace_an_answer(monkeypatch, clock) -> None:
    look_ups, late = LookUps(), Future()
    network = Resolver(monkeypatch)
    network.released.set()
    assert addresses(look_ups) == ["1.1.1.1"]
    network.answer = list
    look_ups._ask(("a.example", 80), late)
    assert addresses(look_ups) == ["1.1.1.1"]


def test_a_call_that_ends_does_not_wait_for_the_look_up(monkeypatch, clock) -> None:
    resolver, look_ups = Resolver(monkeypatch), LookUps()
    call = Cancellation()
    with ThreadPoolExecutor(2) as threads:
        ended = threads.submit(
            look_ups.addresses, "a.example", 80, Deadline(LONG, None, call), LONG
        )
        other = threads.submit(addresses, look_ups)
        wait_until(lambda: waiting(look_ups) == 2)
        call.cancel()
        with pytest.raises(Cancelled):
            ended.result(LONG)
        assert not other.done()
        resolver.released.set()
        assert other.result(LONG) == ["1.1.1.1"]


def test_no_more_than_some_thousand_names_are_kept(network, clock, monkeypatch) -> None:
    monkeypatch.setattr(look_up, "_MOST", 10)
    look_ups = LookUps()
    for number in range(25):
        network.names[f"{number}.example"] = ["1.1.1.1"]
        addresses(look_ups, f"{number}.example")
    assert [host for host, _ in look_ups._known] == [f"{n}.example" for n in range(15, 25)]


def test_a_port_has_addresses_of_its_own(network, clock) -> None:
    look_ups = LookUps()
    for port in (80, 443):
        (found,) = look_ups.addresses("localhost", port, Deadline(LONG), LONG)
        assert found[4] == ("127.0.0.1", port)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_process_does_not_wait_for_a_look_up_of_its_parent(monkeypatch, clock) -> None:
    """Its thread is not in the child, where nobody would ever answer."""
    resolver, look_ups = Resolver(monkeypatch), LookUps()
    with ThreadPoolExecutor(1) as threads:
        row = threads.submit(addresses, look_ups)
        wait_until(lambda: waiting(look_ups) == 1)
        child = os.fork()
        if not child:
            resolver.released.set()
            found = addresses(look_ups, seconds=5)
            os._exit(found != ["1.1.1.1"])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        resolver.released.set()
        assert row.result(LONG) == ["1.1.1.1"]


# -- as downloads use them ----------------------------------------------------------------------


def fetcher(**changes: object) -> Fetcher:
    return Fetcher(Settings(**{"allow_hosts": ("127.0.0.1",), "max_retries": 0, **changes}))


def test_downloads_look_a_host_up_once(server: Server, network: Network, clock: Clock) -> None:
    network.names["images.example"] = ["127.0.0.1"]
    fetching = fetcher()
    with ThreadPoolExecutor(16) as threads:
        urls = [server.url("/slow.png?ms=20", host="images.example")] * 64
        assert list(threads.map(fetching.fetch, urls)) == [PNG] * 64
    assert server.connections > 1
    assert network.asked == ["images.example"]


def test_a_kept_address_is_judged_at_every_connection(network: Network, clock: Clock) -> None:
    """A name that was public and now leads inside, or the reverse, is connected to only where the
    rule allows the address that is used."""
    network.names["rebind.example"] = [["10.0.0.1"], ["8.8.8.8"], ["169.254.169.254"]]
    fetching = fetcher()
    for _ in range(3):
        with pytest.raises(BlockedHost):
            fetching.fetch("http://rebind.example/x.png")
    assert network.tried == []
    clock.now += 30
    with pytest.raises(FetchFailed):
        fetching.fetch("http://rebind.example/x.png")  # 8.8.8.8, to which these tests cannot go
    with pytest.raises(BlockedHost):
        fetching.fetch("http://rebind.example/x.png")
    assert network.tried == ["8.8.8.8"]


def test_a_host_that_has_moved_is_found(server: Server, network: Network, clock: Clock) -> None:
    """Addresses at which nobody listens are not kept."""
    network.names["moved.example"] = [["127.0.0.99"], ["127.0.0.1"]]
    fetching = fetcher(allow_hosts=("127.0.0.0/8",))
    with pytest.raises(FetchFailed):
        fetching.fetch(server.url("/good.png", host="moved.example"))
    assert fetching.fetch(server.url("/good.png", host="moved.example")) == PNG
