"""What a client learns of a download that failed: of public hosts much, of what is inside nothing.

Traffic goes to this machine; `Network` sees to it that no other is contacted.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from score.errors import BlockedHost, FetchFailed, RowError
from score.fetch import address_rule, disclosure
from score.fetch.address_rule import AddressRule, Verdict
from score.fetch.disclosure import Disclosure, NothingPublic
from score.fetch.fetcher import Fetcher
from score.settings import Settings
from tests.support.clock import Clock
from tests.support.hostile import PNG, Authority, Network, Server, dead_port, say_nothing

SECRET = "sig=SECRET"
PUBLIC = "8.8.8.8"  # in the rule's eyes; this machine, where `Network` connects to it


@pytest.fixture(autouse=True)
def public_server(monkeypatch: pytest.MonkeyPatch, network: Network) -> Iterator[Server]:
    """`public.example`: a public host, whose address is one of this machine's."""
    is_public = address_rule.is_public
    monkeypatch.setattr(
        address_rule, "is_public", lambda ip: str(ip) == "127.7.7.7" or is_public(ip)
    )
    network.names["public.example"] = ["127.7.7.7"]
    with Server("127.7.7.7") as server:
        yield server


_fetcher = functools.cache(Fetcher)  # reading the system's certificates takes long


def failure(url: str, **changes: object) -> RowError:
    settings = {"fetch_ports": ("*",), "retry_wait": 0.01, "read_timeout": 0.2, **changes}
    with pytest.raises(RowError) as caught:
        _fetcher(Settings(**settings)).fetch(url)  # type: ignore[arg-type]
    return caught.value


def said(error: RowError, url: str) -> tuple[str, bool, str]:
    """All that a client sees of an error, but its own URL."""
    assert error.__cause__ is None
    assert error.__suppress_context__
    return error.code, error.retryable, error.message.replace(url, "URL")


def leading(public_server: Server, to: str) -> str:
    """A URL of the public host that redirects to another."""
    return public_server.leading_to(to).replace("127.7.7.7", "public.example", 1)


def test_what_is_blocked_looks_alike(
    server: Server, public_server: Server, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither where a name leads, nor whether it exists, nor which ports are open."""
    network.names |= {
        "open.corp": ["127.0.0.1"],
        "db.corp": ["10.1.2.3", "10.1.2.4"],
        "v6.corp": ["fd00::7"],
        "meta.corp": ["169.254.169.254"],
        "nat.corp": ["64:ff9b::a01:203"],
    }
    names = ["open.corp", "db.corp", "v6.corp", "meta.corp", "nat.corp", "nobody.corp", "intranet"]
    hosts = [*names, "127.0.0.1", "10.1.2.3", "169.254.169.254", "[::1]", "2130706433"]
    targets = [f"http://{host}:{port}/a" for host in hosts for port in (server.port, dead_port())]
    targets += [f"https://{host}/a" for host in hosts]
    direct = {said(failure(f"{url}?{SECRET}"), url) for url in targets}
    redirected = set()
    for target in targets:
        url = leading(public_server, target)
        redirected.add(said(failure(url), url.partition("?")[0]))
    ((code, retryable, message),) = direct | redirected
    assert (code, retryable) == ("blocked_host", False)
    assert message.startswith("URL leads to no public address; the log says where")
    assert "SCORE_ALLOW_HOSTS" in message
    assert set(network.tried) == {"127.7.7.7"}
    assert not server.connections
    assert "db.corp leads to 10.1.2.3, 10.1.2.4, which is not public" in caplog.text
    assert "no address for nobody.corp" in caplog.text
    assert "SECRET" not in caplog.text


def test_what_is_allowed_inside_and_gives_no_answer_looks_alike(
    server: Server,
    public_server: Server,
    network: Network,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    network.names["gone.corp"] = ["127.0.0.1"]
    with Server(tls=authority.selfsigned()) as tls, Server(says=say_nothing) as mute:
        refused = f"http://127.0.0.1:{dead_port()}/"
        urls = [
            *(refused, refused.replace("127.0.0.1", "gone.corp"), "http://nobody.corp/"),
            *(server.url(route) for route in ("/garbage", "/no-status", "/close", "/reset")),
            *(server.url(route) for route in ("/silence", "/giant-header", "/length-twice")),
            *(server.url("/good.png", scheme="https"), tls.url("/good.png"), mute.url("/x")),
            *(tls.url("/good.png", scheme="http"), mute.url("/x", scheme="https")),
        ]
        allowed = ("127.0.0.1", "nobody.corp")
        direct = {said(failure(f"{url}?{SECRET}", allow_hosts=allowed), url) for url in urls}
        redirected = set()
        for target in urls:
            url = leading(public_server, target)
            redirected.add(said(failure(url, allow_hosts=allowed), url.partition("?")[0]))
    told = ("fetch_failed", True, "URL cannot be reached; the log says why")
    assert direct | redirected == {told}
    for detail in ("refused", "did not speak HTTP", "did not answer", "TLS", "no address for"):
        assert detail in caplog.text
    assert "SECRET" not in caplog.text


def test_a_deadline_between_tries_tells_no_more(server: Server) -> None:
    """The last try of a server inside that is silent finds its time over."""
    hurried = {"allow_hosts": ("127.0.0.1",), "row_deadline": 0.5, "max_retries": 9}
    url = server.url("/silence")
    assert said(failure(url, **hurried), url)[2] == "URL cannot be reached; the log says why"


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("/status?is=404", "answered 404 Not Found"),
        ("/silence", "did not answer in time"),
        ("/garbage", "did not speak HTTP"),
    ],
)
def test_public_hosts_are_reported_as_they_are(
    public_server: Server, route: str, says: str
) -> None:
    error = failure(public_server.url(route, host="public.example"))
    assert f"public.example:{public_server.port}{route.partition('?')[0]}" in error.message
    assert says in error.message


def test_a_public_port_that_refuses_is_named() -> None:
    error = failure(f"http://public.example:{dead_port()}/")
    assert "refused the connection" in error.message


def test_what_answers_inside_is_named_by_the_cells_own_url(
    server: Server, public_server: Server
) -> None:
    """A redirect may lead to a name that the client does not know."""
    for route, says in [("/status?is=404", "answered 404"), ("/to-nowhere", "to nowhere")]:
        url = leading(public_server, server.url(route))
        error = failure(url, allow_hosts=("127.0.0.1",))
        assert says in error.message
        assert "127.0.0.1" not in error.message
        assert "public.example" in error.message
        assert "404" in failure(server.url("/status?is=404"), allow_hosts=("127.0.0.1",)).message


def test_the_log_of_failures_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(disclosure, "time", SimpleNamespace(monotonic=clock))
    telling = Disclosure()
    for _ in range(1000):
        telling.told(NothingPublic("x leads to 10.0.0.1"), "http://x/")
    assert len(caplog.records) == disclosure._MOST
    clock.now += 61
    telling.told(NothingPublic("x leads to 10.0.0.1"), "http://x/")
    assert f"{1000 - disclosure._MOST} failed downloads are not in this log" in caplog.text
    assert len(caplog.records) == disclosure._MOST + 2


def test_an_error_that_shows_nothing_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = FetchFailed("http://x/ answered 404")
    assert Disclosure().told(error, "http://x/") is error
    assert not caplog.records


# -- ports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "ports", "host", "address", "port", "verdict"),
    [
        ((), ("80", "443"), "a.example", "8.8.8.8", 443, Verdict.PUBLIC),
        ((), ("80", "443"), "a.example", "8.8.8.8", 22, Verdict.PORT),
        ((), ("22",), "a.example", "8.8.8.8", 22, Verdict.PUBLIC),
        ((), ("*",), "a.example", "8.8.8.8", 22, Verdict.PUBLIC),
        ((), ("*",), "a.example", "10.0.0.1", 80, Verdict.PRIVATE),
        (("a.example:8080",), ("80",), "A.example.", "8.8.8.8", 8080, Verdict.PUBLIC),
        (("a.example:8080",), ("80",), "a.example", "8.8.8.8", 80, Verdict.PUBLIC),
        (("a.example:8080",), ("80",), "a.example", "8.8.8.8", 81, Verdict.PORT),
        (("a.example:8080",), ("80",), "a.example", "10.0.0.1", 8080, Verdict.INSIDE),
        (("a.example:8080",), ("80",), "a.example", "10.0.0.1", 80, Verdict.PRIVATE),
        (("a.example:8080",), ("80",), "b.example", "8.8.8.8", 8080, Verdict.PORT),
        (("a.example",), ("80",), "a.example", "8.8.8.8", 8080, Verdict.PUBLIC),
        (("a.example",), ("80",), "a.example", "10.0.0.1", 8080, Verdict.INSIDE),
        (("10.0.0.0/8",), ("80",), "a.example", "10.0.0.1", 8080, Verdict.INSIDE),
        (("10.0.0.0/8:9000",), ("80",), "a.example", "10.0.0.1", 9000, Verdict.INSIDE),
        (("10.0.0.0/8:9000",), ("80",), "a.example", "10.0.0.1", 80, Verdict.PRIVATE),
        (("10.0.0.1:9000",), ("80",), "10.0.0.1", "10.0.0.1", 9000, Verdict.INSIDE),
        (("[fd00::1]:9000",), ("80",), "[fd00::1]", "fd00::1", 9000, Verdict.INSIDE),
        (("[fd00::1]:9000",), ("80",), "[fd00::1]", "fd00::1", 80, Verdict.PRIVATE),
        (("fd00::/16",), ("80",), "a.example", "fd00::1", 80, Verdict.INSIDE),
        (("fd00::1",), ("80",), "[fd00::1]", "fd00::1", 9000, Verdict.INSIDE),
        (("::ffff:0:0/96",), ("80",), "a.example", "::ffff:10.0.0.1", 80, Verdict.PRIVATE),
    ],
)
def test_ports_are_judged_with_hosts(
    allowed: tuple[str, ...],
    ports: tuple[str, ...],
    host: str,
    address: str,
    port: int,
    verdict: Verdict,
) -> None:
    rule = AddressRule(Settings(allow_hosts=allowed, fetch_ports=ports).allow_hosts, ports)
    assert rule.judge(host, address, port) is verdict


def test_a_public_host_is_fetched_from_at_the_usual_ports_alone(
    public_server: Server, network: Network
) -> None:
    url = public_server.url("/good.png", host="public.example")
    port, usual = public_server.port, ("80", "443")
    error = failure(url, fetch_ports=usual)
    assert isinstance(error, BlockedHost)
    assert f"port {port} of public.example; SCORE_FETCH_PORTS" in error.message
    assert not network.tried
    for changes in (
        {"fetch_ports": (str(port),)},
        {"allow_hosts": (f"public.example:{port}",)},
        {"allow_hosts": ("public.example",)},
        {"allow_hosts": ("127.0.0.0/8",)},
    ):
        assert _fetcher(Settings(**changes)).fetch(url) == PNG  # type: ignore[arg-type]
    error = failure(url, fetch_ports=usual, allow_hosts=(f"public.example:{port + 1}",))
    assert isinstance(error, BlockedHost)


def test_a_redirect_is_held_to_the_ports_too(server: Server, public_server: Server) -> None:
    """From an allowed host inside to a port of a public one that is not fetched from."""
    url = server.leading_to(public_server.url("/good.png", host="public.example"))
    error = failure(url, allow_hosts=("127.0.0.1",), fetch_ports=("80", "443"))
    assert isinstance(error, BlockedHost)
    assert "SCORE_FETCH_PORTS" in error.message
    assert not public_server.requests


def test_a_proxy_is_asked_for_the_same_ports(network: Network) -> None:
    changes = {"proxy": "http://127.0.0.1:9", "fetch_ports": ("80", "443"), "max_retries": 0}
    for url in ("http://images.example:22/", "http://8.8.8.8:22/"):
        assert "SCORE_FETCH_PORTS" in failure(url, **changes).message
    assert not network.tried
    allowed = {**changes, "allow_hosts": ("images.example:22", "8.8.8.8")}
    for url in ("http://images.example:22/", "http://8.8.8.8:22/", "http://images.example/"):
        assert "the proxy" in failure(url, **allowed).message
