"""URLs that lead to no public address, in as many spellings as are known: none is connected to. And
URLs that do, in the spellings of honest people: each is."""

from __future__ import annotations

import pytest

from score.errors import BadBase64, BadUrl, BlockedHost, FetchFailed
from score.fetch.look_up import literal
from tests.fetch.test_fetch import failure
from tests.support.hostile import Network, Server

BLOCKS = (
    *("0.0.0.0", "10.1.2.3", "100.64.1.1", "127.0.0.1", "169.254.169.254", "172.16.5.4"),
    *("192.0.0.8", "192.0.2.9", "192.168.0.1", "198.18.0.9", "198.51.100.7", "203.0.113.5"),
    *("224.0.0.251", "239.255.255.250", "240.1.1.1", "255.255.255.255", "168.63.129.16"),
    *("100.100.100.200", "192.88.99.1"),
)
"""An address of each block that is not public, and metadata services at public numbers."""


def _number(address: str) -> int:
    first, second, third, fourth = map(int, address.split("."))
    return (first << 24) + (second << 16) + (third << 8) + fourth


def _spellings(address: str) -> tuple[str, ...]:
    number = _number(address)
    parts = [int(part) for part in address.split(".")]
    pair = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return (
        address,
        str(number),
        f"0x{number:x}",
        f"0X{number:08X}",
        f"0{number:o}",
        ".".join(f"0x{part:x}" for part in parts),
        ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        f"0x{parts[0]:x}.{parts[1]}.0{parts[2]:o}.{parts[3]}",
        f"[::ffff:{address}]",
        f"[::ffff:{pair}]",
        f"[0:0:0:0:0:FFFF:{pair}]",
        f"[::{address}]",
        f"[64:ff9b::{pair}]",
        f"[2002:{pair}::1]",
    )


REFUSED = (
    *dict.fromkeys(spelling for address in BLOCKS for spelling in _spellings(address)),
    *("[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]"),
    *("[fe80::1]", "[fe80::1%eth0]", "[fe80::1%251]", "[FE80::A:B%lo]", "[febf::1]", "[fec0::9]"),
    *("[fc00::7]", "[fd12:3456:789a::1]", "[fd00:ec2::254]", "[ff01::1]", "[ff02::fb]"),
    *("[ff05::2]", "[ff0e::101]", "[100::]", "[2001:db8::8]", "[3fff::1]", "[5f00::2]"),
    *("[64:ff9b:1::a9fe:a9fe]", "[2001:0:a9fe:a9fe::]", "[2001:0:0:0:0:0:f5ff:fffe]"),
)

MALFORMED = (
    *("http://127.0.0.1@", "http://a@127.0.0.1/", "http://example.org:80@127.0.0.1/"),
    *("http://127.0.0.1:80:80/", "http://[::1", "http://::1/", "http://[::1]x/", "http://[]/"),
    *("http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/", "http://١٢٧.0.0.1/"),
    *("http://127.0.0.1%00.example.org/", "http://127.0.0.1%2f@example.org/"),
    *("http://127.0.0.1\\@example.org/", "http:\\\\127.0.0.1\\", "http:/127.0.0.1/"),
    *("http://127.0.0.1 .example.org/", "http://127.0.0.1\t/", "http://127.0.0.1\r\nHost: x/"),
    *("file:///etc/passwd", "file://127.0.0.1/x", "gopher://127.0.0.1:70/_x", "dict://127.0.0.1/"),
    *("ftp://127.0.0.1/", "ldap://127.0.0.1/", "jar:http://127.0.0.1!/", "ws://127.0.0.1/"),
    *("sftp://127.0.0.1/", "tftp://127.0.0.1/x", "netdoc:///etc/passwd", "s3://127.0.0.1/x"),
)

NOWHERE = (
    *("127.0.0.1.", "127.0.0.1..", "localhost.", "0x7f.1.", "1.2.3.4.5", "256.256.256.256"),
    *("0x100000000", "4294967296", "127.0.0.0x100", "0x.0x.0x.0x", "00000000000000000001.x"),
    *("metadata", "metadata.google.internal", "instance-data", "kubernetes.default.svc"),
)
"""Hosts that are names: no address is read into them, and no resolver here knows them."""

ALLOWED = (
    *("8.8.8.8", "1.1.1.1", "9.9.9.9", "52.95.110.1", "20.42.0.1", "35.190.247.0", "104.16.1.1"),
    *("172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0", "169.253.1.1"),
    *("169.255.0.1", "192.1.1.1", "192.167.255.255", "192.169.0.0", "198.17.255.255"),
    *("198.20.0.0", "203.0.112.1", "203.0.114.1", "223.255.255.254", "11.0.0.0", "9.255.255.255"),
    *("126.255.255.255", "128.0.0.1", "168.63.129.15", "168.63.129.17", "134744072"),
    *("0x08080808", "010.010.010.010", "8.526344", "[2606:4700:4700::1111]"),
    *("[2001:4860:4860::8888]", "[2620:fe::fe]", "[2a00:1450:4001:81b::200e]"),
    *("[2600:1f18::1]", "[2A01:4F8::1]", "[::ffff:8.8.8.8]", "[64:ff9b::8.8.8.8]"),
    *("[2002:808:808::1]", "[2400:cb00:2048:1::c629:d7a2]"),
)
NAMES = (
    *("example.org", "EXAMPLE.org", "images.example.org", "a.b.c.d.example.org", "example.org."),
    *("xn--bcher-kva.example", "bücher.example", "例え.example", "x-y.example", "1and1.example"),
    *("127.0.0.1.nip.example", "10.example", "0x7f.example", "localhost.example", "a_b.example"),
    *("cdn-1.example", "s3.eu-west-1.example", "account.blob.core.example", "www.example"),
    *("metadata.example", "3com.example", "2130706433.example"),
)


def test_the_corpus_is_large() -> None:
    assert len({*REFUSED, *MALFORMED, *NOWHERE}) >= 250
    assert len({*ALLOWED, *NAMES}) >= 60


@pytest.mark.parametrize("host", REFUSED)
def test_no_spelling_of_a_private_address_is_connected_to(host: str, network: Network) -> None:
    error = failure(f"http://{host}/latest/meta-data", allow_hosts=())
    assert isinstance(error, BlockedHost)
    assert not network.tried


@pytest.mark.parametrize("host", REFUSED)
def test_no_redirect_leads_there(host: str, server: Server, network: Network) -> None:
    allowed = f"127.0.0.1:{server.port}"
    error = failure(server.leading_to(f"http://{host}/"), allow_hosts=(allowed,))
    assert isinstance(error, BlockedHost)
    assert network.tried == ["127.0.0.1"]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_no_name_leads_there(number: int, network: Network) -> None:
    """Also where it has led to a public address when it was looked at before."""
    network.names["rebinding.example"] = [["8.8.8.8"], [BLOCKS[number]]]
    first = failure("http://rebinding.example/", allow_hosts=(), max_retries=0)
    assert isinstance(first, FetchFailed)
    assert isinstance(failure("http://rebinding.example/", allow_hosts=()), BlockedHost)
    assert network.tried == ["8.8.8.8"]


@pytest.mark.parametrize("url", MALFORMED)
def test_what_is_no_plain_web_url_is_not_looked_up(url: str, network: Network) -> None:
    assert isinstance(failure(url, allow_hosts=()), (BadUrl, BadBase64, BlockedHost))
    assert not network.tried
    assert not network.asked


@pytest.mark.parametrize("host", NOWHERE)
def test_what_looks_like_an_address_is_none(host: str, network: Network) -> None:
    network.names["localhost."] = ["127.0.0.1"]
    error = failure(f"http://{host}/", allow_hosts=(), max_retries=0)
    assert isinstance(error, (BlockedHost, FetchFailed, BadUrl))
    assert not network.tried
    assert literal(host) is None


@pytest.mark.parametrize("host", ALLOWED)
def test_public_addresses_stay_allowed(host: str, network: Network) -> None:
    failure(f"http://{host}/cat.jpg", allow_hosts=(), max_retries=0)
    assert len(network.left) == 1


@pytest.mark.parametrize("host", NAMES)
def test_names_that_lead_to_public_addresses_stay_allowed(host: str, network: Network) -> None:
    spelled = host.lower().encode("idna").decode()
    network.names |= {name: ["8.8.8.8"] for name in (host, spelled, spelled.rstrip("."))}
    failure(f"http://{host}/cat.jpg", allow_hosts=(), max_retries=0)
    assert network.left == ["8.8.8.8"]
