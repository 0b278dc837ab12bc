"""Downloads by way of a proxy that the operator has named: what it is told, and what never."""

from __future__ import annotations

import base64
import functools
import logging
import time
from collections.abc import Iterator

import pytest

from score.errors import BadUrl, BlockedHost, FetchFailed, FetchTimeout, SettingError
from score.fetch.fetcher import Fetcher
from score.settings import Settings
from tests.fetch.test_fetch import FORBIDDEN
from tests.support.hostile import JPEG, PNG, Authority, Network, Server, dead_port, drip_handshake
from tests.support.proxy import Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def fetcher(proxy: Proxy | str, **changes: object) -> Fetcher:
    settings: dict[str, object] = {
        "proxy": proxy if isinstance(proxy, str) else proxy.url(),
        "max_retries": 0,
        "row_deadline": 5.0,
        "read_timeout": 3.0,
        "fetch_ports": ("*",),
    }
    return _fetcher(Settings(**{**settings, **changes}))  # type: ignore[arg-type]


# Reading the system's certificates takes longer than most of these tests.
_fetcher = functools.cache(Fetcher)


def test_the_proxy_looks_names_up_and_fetches(
    server: Server, proxy: Proxy, network: Network
) -> None:
    url = server.url("/good.png?a=b#part", host="images.example")
    assert fetcher(proxy).fetch(url) == PNG
    (head,) = proxy.heads
    assert head.startswith(f"GET http://images.example:{server.port}/good.png?a=b HTTP/1.1\n")
    assert f"Host: images.example:{server.port}" in head
    assert "User-Agent: clip-endpoints/" in head
    assert set(network.asked) == {"127.0.0.1"}, "the proxy alone is looked up"


def test_tls_goes_through_a_tunnel_to_the_server(proxy: Proxy, authority: Authority) -> None:
    with Server(tls=authority.context()) as server:
        settings = {"allow_hosts": ("127.0.0.1",), "ca_bundle": str(authority.file)}
        fetching = fetcher(proxy, **settings)
        assert fetching.fetch(server.url("/good.png?sig=SECRET")) == PNG
        assert fetching.fetch(server.url("/good.jpg")) == JPEG
        (head,) = proxy.heads
        assert head.startswith(f"CONNECT 127.0.0.1:{server.port} ")
        assert "SECRET" not in head, "the proxy sees where a tunnel leads, and no more"
        assert server.connections == 1


def test_the_servers_certificate_is_checked_through_the_tunnel(
    proxy: Proxy, authority: Authority
) -> None:
    with Server(tls=authority.context("127.0.0.2")) as server:
        settings = {"allow_hosts": ("127.0.0.1",), "ca_bundle": str(authority.file)}
        with pytest.raises(FetchFailed, match="mismatch"):
            fetcher(proxy, **settings).fetch(server.url("/good.png"))
        assert not server.requests


ZONES = ["[::1%25lo]", "[fe80::1%25no-such-interface]", "[fd00::1%251]"]


@pytest.mark.parametrize("host", [*FORBIDDEN, *ZONES, "localhost", "LOCALHOST.", "a.localhost"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxy_is_not_asked_for_a_private_address(
    network: Network, host: str, scheme: str
) -> None:
    with pytest.raises(BlockedHost):
        fetcher("http://127.0.0.1:9").fetch(f"{scheme}://{host}/latest/meta-data")
    assert not network.tried, "neither the address nor the proxy"


def test_nor_does_a_redirect_lead_it_there(server: Server, proxy: Proxy) -> None:
    fetching = fetcher(proxy)
    url = server.leading_to("http://169.254.169.254/").replace("127.0.0.1", "images.example", 1)
    with pytest.raises(BlockedHost):
        fetching.fetch(url)
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("url", ["ftp://images.example/", "file:///etc/passwd", "http://u:p@x/"])
def test_nor_for_what_is_not_fetched_at_all(proxy: Proxy, url: str) -> None:
    with pytest.raises(BadUrl):
        fetcher(proxy).fetch(url)
    assert not proxy.heads


def test_what_is_allowed_goes_by_the_proxy_too(server: Server, proxy: Proxy) -> None:
    assert fetcher(proxy, allow_hosts=("127.0.0.1",)).fetch(server.url("/good.png")) == PNG
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("user", ["me:pass:word@", "me:p%40ss@", "me@"])
def test_the_proxys_password_is_sent_to_the_proxy_alone(
    server: Server, proxy: Proxy, authority: Authority, user: str
) -> None:
    fetching = fetcher(proxy.url(user), allow_hosts=("127.0.0.1",), ca_bundle=str(authority.file))
    fetching.fetch(server.url("/good.png"))
    with Server(tls=authority.context()) as secure:
        fetching.fetch(secure.url("/good.png"))
        sent = base64.b64encode(user[:-1].replace("%40", "@").encode()).decode()
        for head in proxy.heads:
            assert f"proxy-authorization: basic {sent}".lower() in head.lower()
        for head in (*server.heads, *secure.heads):
            assert "authorization" not in head.lower()


@pytest.mark.parametrize(
    ("status", "retryable"), [(407, False), (403, False), (502, True), (503, True)]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named(scheme: str, status: int, retryable: bool) -> None:
    with Proxy(refuses=status) as proxy, pytest.raises(FetchFailed) as caught:
        fetcher(proxy).fetch(f"{scheme}://images.example/cat.png?sig=SECRET")
    assert f"answered {status}" in caught.value.message
    assert ("the proxy" in caught.value.message) == (scheme == "https")
    assert caught.value.retryable == retryable
    assert "SECRET" not in caught.value.message


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    for scheme in ("http", "https"):
        with pytest.raises(FetchFailed) as caught:
            proxy = f"http://me:SECRET@127.0.0.1:{dead_port()}"
            fetcher(proxy).fetch(f"{scheme}://images.example/")
        assert caught.value.message == "the proxy refused the connection"
        assert caught.value.retryable
        assert "SECRET" not in caplog.text
        assert "SECRET" not in repr(caught.value.__cause__)


def test_settings_do_not_show_the_password() -> None:
    settings = Settings(proxy="http://me:SECRET@proxy.example:3128")
    assert "SECRET" not in repr(settings)
    with pytest.raises(SettingError) as caught:
        Settings.from_env({"SCORE_PROXY": "http://me:SECRET@proxy.example:3128/path"})
    assert "SCORE_PROXY" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "proxy",
    [
        *("proxy.example:3128", "https://proxy.example", "socks5://proxy.example", "http://"),
        *("http://proxy.example:port", "http://proxy.example/path", "http://proxy.example?x=1"),
        *("http://proxy.example:0", "http://[::1", "http://two words", "http://a\r\nX: y"),
    ],
)
def test_a_proxy_that_cannot_be_is_refused(proxy: str) -> None:
    with pytest.raises(SettingError, match=r"^SCORE_PROXY must be like http://"):
        Settings.from_env({"SCORE_PROXY": proxy})
    with pytest.raises(SettingError, match=r"^proxy must be like http://"):
        Settings(proxy=proxy)


@pytest.mark.parametrize(
    "agent", ["a\r\nX-Injected: yes", "a\nb", "a\tb", "ü", "x" * 501, "\0", "  "]
)
def test_a_user_agent_that_is_no_header_is_refused(agent: str) -> None:
    with pytest.raises(SettingError, match=r"^user_agent must be one line"):
        Settings(user_agent=agent)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_deadline_holds_where_the_proxy_is_silent(scheme: str) -> None:
    with Server(says=lambda: [60.0]) as silent:
        began = time.monotonic()
        fetching = fetcher(f"http://127.0.0.1:{silent.port}", row_deadline=0.4)
        with pytest.raises(FetchTimeout):
            fetching.fetch(f"{scheme}://images.example/")
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_the_deadline_holds_where_the_proxy_drips(begins: bytes) -> None:
    def says() -> Iterator[bytes | float | str]:
        yield from [begins, 0.1] if begins else [b"HTTP/1.1 200 OK\r\nX: "]
        yield from drip_handshake()

    with Server(says=says) as dripping:
        began = time.monotonic()
        fetching = fetcher(f"http://127.0.0.1:{dripping.port}", row_deadline=0.6)
        with pytest.raises(FetchTimeout):
            fetching.fetch("https://images.example/")
        assert time.monotonic() - began < 10
