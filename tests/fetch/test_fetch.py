"""What an image cell says becomes bytes or a RowError: encodings, the address rule, the clock rule.

Traffic goes to a hostile server on this machine; `Network` sees to it that no other is contacted.
"""

from __future__ import annotations

import base64
import errno
import functools
import http.client
import logging
import random
import socket
import ssl
import threading
import time
import tracemalloc
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import urllib3.exceptions

from score import __version__
from score.concurrency.cancellation import Cancellation
from score.errors import (
    BadBase64,
    BadType,
    BadUrl,
    BlockedHost,
    FetchFailed,
    FetchTimeout,
    RowError,
    SettingError,
    TooManyBytes,
)
from score.fetch import address_rule, cells, connections, host_concurrency
from score.fetch.connections import Connections
from score.fetch.download import Downloader
from score.fetch.fetcher import Fetcher
from score.settings import Settings
from tests.support.hostile import (
    JPEG,
    PNG,
    ROUTES,
    Authority,
    Server,
    dead_port,
    drip_handshake,
    in_a_while,
    say_nothing,
)

KIB = 1024


@pytest.fixture
def public(monkeypatch) -> None:
    """This machine stands for a public host, of whose failures messages say more."""
    monkeypatch.setattr(address_rule, "is_public", lambda ip: ip.is_loopback)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def fetcher(**changes) -> Fetcher:
    """This machine may be fetched from, nothing is tried twice, and images are small."""
    settings = {
        "allow_hosts": ("127.0.0.1", "::1"),
        "connect_timeout": 5.0,
        "read_timeout": 5.0,
        "row_deadline": 10.0,
        "max_retries": 0,
        "retry_wait": 0.01,
        "max_image_bytes": 512 * KIB,
    }
    return _fetcher(Settings(**{**settings, **changes}))


# Reading the system's certificates takes longer than most of these tests.
_fetcher = functools.cache(Fetcher)


def failure(cell: object, **changes) -> RowError:
    with pytest.raises(RowError) as caught:
        fetcher(**changes).fetch(cell)
    return caught.value


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses before retries, which then take no time."""
    taken: list[float] = []
    monkeypatch.setattr(Cancellation, "sleep", lambda _, seconds: taken.append(seconds))
    monkeypatch.setattr(host_concurrency, "_now", lambda: time.monotonic() + sum(taken))
    return taken


# -- bytes, base64, data: URIs ------------------------------------------------------------------

# All of both alphabets' special characters: + / and - _
TRICKY = bytes([0xFB, 0xEF, 0xBE, 0xFF, 0xFF, 0xFE, 0x00])
PLAIN = base64.b64encode(TRICKY).decode()
URL_SAFE = base64.urlsafe_b64encode(TRICKY).decode()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_every_kind_are_taken_as_they_are(kind):
    assert fetcher().fetch(kind(PNG)) == PNG


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(PLAIN, id="standard"),
        pytest.param(URL_SAFE, id="url-safe"),
        pytest.param(PLAIN.rstrip("="), id="no padding"),
        pytest.param(URL_SAFE.rstrip("="), id="url-safe, no padding"),
        pytest.param(f" \t\r\n{PLAIN}\n ", id="whitespace around"),
        pytest.param("\n".join(PLAIN), id="whitespace inside"),
        pytest.param(base64.encodebytes(TRICKY).decode(), id="encodebytes"),
        pytest.param(f"data:image/png;base64,{PLAIN}", id="data"),
        pytest.param(f"DATA:image/png;charset=x;BASE64,{URL_SAFE.rstrip('=')}", id="data, odd"),
        pytest.param(f"data:;base64,{urllib.parse.quote(PLAIN, safe='')}", id="data, both codes"),
        pytest.param(f"data:;base64,{base64.encodebytes(TRICKY).decode()}", id="data, lines"),
        pytest.param(f"data:,{urllib.parse.quote_from_bytes(TRICKY)}", id="data, percent"),
    ],
)
def test_every_spelling_of_base64_is_read(spelled):
    assert fetcher().fetch(spelled) == TRICKY


def test_base64_may_be_broken_into_lines():
    text = base64.encodebytes(PNG).decode()
    assert text.count("\n") > 100
    assert fetcher().fetch(text) == PNG
    assert fetcher().fetch(text.replace("\n", "\r\n")) == PNG


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA=AA",
        "AA==AA==",
        "iVBORw0KGgo*",
        "cat.jpg",
        "see https://example.com/cat.jpg",
        "data:image/png;base64",
        "data:image/png;base64,A",
        "data:;base64,%%%%",
        "data:,\ud800",
        "\ud800",
        "AAA\0",
        "ＡＡＡＡ",
        "http:/127.0.0.1/one-slash",
    ],
)
def test_what_is_no_base64_says_so(text):
    assert isinstance(failure(text), BadBase64)


@pytest.mark.parametrize("value", [1, 1.5, True, False, [PNG], {"url": "x"}, object(), Path("x")])
def test_another_type_is_named(value):
    error = failure(value)
    assert isinstance(error, BadType)
    assert type(value).__name__ in error.message


# -- byte caps ---------------------------------------------------------------------------------

LIMIT = 5701  # a hundred lines of encodebytes, and no multiple of 3: padding must not count


@pytest.mark.parametrize("size", [LIMIT - 2, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("spell", [bytes, base64.b64encode, base64.encodebytes])
def test_an_image_of_exactly_the_limit_is_taken(spell, size):
    data = bytes(size)
    cell = spell(data)
    cell = cell if spell is bytes else cell.decode()
    assert fetcher(max_image_bytes=LIMIT).fetch(cell) == data


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(bytes(LIMIT + 1), id="bytes"),
        pytest.param(memoryview(bytes(LIMIT + 1)), id="memoryview"),
        pytest.param(base64.b64encode(bytes(LIMIT + 1)).decode(), id="base64"),
        pytest.param(base64.b64encode(bytes(LIMIT + 1)).decode().rstrip("="), id="no padding"),
        pytest.param("data:;base64," + base64.b64encode(bytes(LIMIT + 1)).decode(), id="data"),
        pytest.param("data:," + "x" * (LIMIT + 1), id="data, percent"),
    ],
)
def test_a_byte_more_is_too_many(cell):
    assert isinstance(failure(cell, max_image_bytes=LIMIT), TooManyBytes)


def test_base64_is_measured_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(cells.base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    assert isinstance(failure("A" * 8000, max_image_bytes=LIMIT), TooManyBytes)


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("data:," + "%41" * 2**20, id="data, percent"),
        pytest.param("data:," + "%" * 2**19, id="data, bad percent"),
        pytest.param("data:;base64," + "%41" * 2**20, id="data, both codes"),
        pytest.param("data:;base64," + "%20%41" * 2**19, id="data, blanks in percent"),
        pytest.param("A " * 2**20, id="blanks"),
        pytest.param("ABCD\n" * 2**19, id="lines"),
        pytest.param("A\u2003" * 2**20, id="wide blanks"),
        pytest.param("data:" + " " * 2**21 + ",a", id="media type"),
        pytest.param("a+" * 2**20, id="no scheme"),
        pytest.param("=" * 2**21, id="padding"),
    ],
)
def test_no_spelling_costs_many_times_its_size(cell):
    tracemalloc.start()
    try:
        with suppress(RowError):
            fetcher(max_image_bytes=20 * 2**20).fetch(cell)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(cell) + 2**20  # and some beside it
    finally:
        tracemalloc.stop()


def test_escapes_are_decoded_quickly():
    """An object of each would take eight times as long."""
    fetching = fetcher(max_image_bytes=20 * 2**20)
    began = time.process_time()
    assert fetching.fetch("data:," + "%41" * 4_000_000) == b"A" * 4_000_000
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("data:," + "%41" * (LIMIT + 1), id="data, percent"),
        pytest.param("data:;base64," + "%41" * 2 * LIMIT, id="data, both codes"),
        pytest.param("A " * 2 * LIMIT, id="blanks"),
    ],
)
def test_what_cannot_be_small_is_not_decoded(cell, monkeypatch):
    monkeypatch.setattr(cells.base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    assert isinstance(failure(cell, max_image_bytes=LIMIT), TooManyBytes)


@pytest.mark.parametrize("piece", [3, 4, 5, 64])
def test_escapes_are_resolved_as_urllib_does(piece, monkeypatch):
    monkeypatch.setattr(cells, "_PIECE", piece)
    dice = random.Random(piece)
    for letters in ("%=\n\r 4aF%_", "%00é\u2003漢", "%41+/-"):
        for _ in range(500):
            text = "".join(dice.choices(letters, k=dice.randrange(1, 90)))
            assert fetcher().fetch(f"data:,{text}x") == urllib.parse.unquote_to_bytes(text + "x")


@pytest.mark.parametrize(
    "route", ["/endless", "/endless-chunks", "/huge-length", "/gzip-bomb", "/gzip-gzip-bomb"]
)
def test_a_download_ends_at_the_limit(server, route):
    error = failure(server.url(route), max_retries=3)
    assert isinstance(error, TooManyBytes)
    assert server.requests[route] == 1, "no retry can make it smaller"


# -- paths -------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path) -> Path:
    """An input folder, next to a file that is not below it."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    root = tmp_path / "input"
    (root / "deep").mkdir(parents=True)
    (root / "cat.png").write_bytes(PNG)
    (root / "deep" / "my cät.png").write_bytes(JPEG)
    (root / "out").symlink_to(tmp_path)
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "inside.png").symlink_to(root / "cat.png")
    (root / "loop").symlink_to(root / "loop")
    return root


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("cat.png", PNG),
        ("./deep/../cat.png", PNG),
        (" deep/my cät.png\n", JPEG),
        ("inside.png", PNG),
    ],
)
def test_a_path_below_the_root_is_read(root, path, data):
    assert fetcher().fetch(path, root) == data


def test_an_absolute_path_below_the_root_is_read(root):
    assert fetcher().fetch(str(root / "cat.png"), root) == PNG


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "deep/../../secret.png",
        "out/secret.png",
        "out.png",
        "/etc/passwd",
        "/proc/self/environ",
        "loop.",
        "deep",
        ".",
        "cat.png\0",
        "no such file.png",
        "\ud800.png",
        "x" * 300 + ".png",
        "x." * 2000,
    ],
)
def test_no_other_path_is_read(root, path, monkeypatch):
    monkeypatch.setattr(cells, "from_file", lambda *_: pytest.fail("read"))
    with suppress(BadBase64):  # some paths, such as /etc/passwd, are base64 of something
        fetcher().fetch(path, root)


def test_a_link_to_itself_is_no_path(root):
    # Its name happens to be base64.
    assert fetcher().fetch("loop", root) == base64.b64decode("loop")


def test_a_long_cell_is_not_looked_for_on_the_disk(root, monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda _: pytest.fail("looked for"))
    assert fetcher().fetch("A" * 2000, root) == bytes(1500)


@pytest.mark.parametrize("path", ["deep/none.png", "none.png", "C:\\none.png", "/data/none.png"])
def test_a_file_that_is_not_there_is_named_with_its_folder(root, path):
    with pytest.raises(BadBase64) as caught:
        fetcher().fetch(path, root)
    assert caught.value.message.startswith(f"no such file below {root.resolve()}: {path},")
    assert "--root" in caught.value.message


@pytest.mark.parametrize("cell", ["b'" + "/9j/" * 400 + "'", "neither URL nor path"])
def test_what_is_no_path_is_not_called_a_file(root, cell):
    with pytest.raises(BadBase64) as caught:
        fetcher().fetch(cell, root)
    assert "file" not in caught.value.message


@pytest.mark.parametrize("path", ["cat.png", "deep/none.png", "C:\\none.png", "/etc/passwd.txt"])
def test_without_a_root_no_path_is_read(root, path, monkeypatch):
    """Nor proposed: the message may be for a client of a server."""
    monkeypatch.chdir(root)
    error = failure(path)
    assert isinstance(error, BadBase64)
    assert error.message.endswith("; if it names a file, send the file's bytes as base64")
    assert not {"--root", "folder", str(root)} & {*error.message.split()}


def test_a_path_object_in_a_row_is_told_to_be_read():
    error = failure(Path("cat.png"))
    assert isinstance(error, BadType)
    assert "read_bytes()" in error.message


def test_a_file_url_is_not_a_path(root):
    with pytest.raises(BadUrl):
        fetcher().fetch(f"file://{root}/cat.png", root)


def test_a_file_over_the_limit_is_too_many_bytes(root):
    with pytest.raises(TooManyBytes):
        fetcher(max_image_bytes=100).fetch("cat.png", root)


# -- URLs as they are written ------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///cat.jpg",
        "http://?x=1",
        "http://[",
        "http://[::1",
        "http://[1.2.3.4]/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://two words/",
        "http://a\nb/",
        "http://a\0b/",
        "http://①②⑦.0.0.1/",
        "http://127.0.0.1%2F.example/",
        "http://127.0.0.1;.example/",
        "http://\ud800/",
        "http://user@127.0.0.1/",
        "http://user:password@127.0.0.1/",
        "http://:@127.0.0.1/",
        "http://127.0.0.1/" + "x" * 9000,
        "ftp://127.0.0.1/cat.jpg",
        "file:///etc/passwd",
        "s3://bucket/cat.jpg",
        "azureml://datastores/x/paths/cat.jpg",
    ],
)
def test_a_url_that_cannot_be_fetched_as_written_says_so(url, network):
    assert isinstance(failure(url), BadUrl)
    assert not network.tried


@pytest.mark.parametrize(
    "spell",
    [
        lambda url: f"  {url}\n",
        lambda url: url.replace("http", "HTTP"),
        lambda url: url + "?x=1&y=%20#fragment",
        lambda url: url.replace("good", "g%6Fod"),
    ],
)
def test_a_url_may_be_spelled_in_many_ways(server, spell):
    assert fetcher().fetch(spell(server.url("/good.png"))) == PNG


@pytest.mark.parametrize("path", ["/ü.png", "/%C3%BC.png", "/x/../%c3%bc.png"])
def test_a_path_may_hold_any_letter(server, path):
    assert fetcher().fetch(server.url(path)) == PNG


def test_spaces_and_line_breaks_in_a_path_cannot_break_the_request(server):
    error = failure(server.url("/a b\r\nX-Injected: yes\r\n\r\nGET /good.png"))
    assert isinstance(error, FetchFailed)
    assert list(server.requests) == ["/a b\r\nX-Injected: yes\r\n\r\nGET /good.png"]


def test_a_query_is_sent_and_a_fragment_is_not(server):
    fetcher().fetch(server.url("/good.png?sig=a%2Bb&x=ü#part"))
    assert server.queries == ["sig=a%2Bb&x=%C3%BC"]


# -- the address rule --------------------------------------------------------------------------

FORBIDDEN = [
    # This machine, in the spellings that a C library reads.
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1"),
    *("0177.0.0.01", "017700000001", "127.255.255.254", "0", "0.0.0.0", "0.1.2.3"),
    # Metadata services of clouds.
    *("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662"),
    *("168.63.129.16", "0xa83f8110", "100.100.100.200", "192.0.0.192"),
    # Private, shared, documentation, benchmarking, multicast, reserved, broadcast.
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
    *("198.18.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "169.254.0.1"),
    # IPv6, and IPv4 hidden in it.
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:a9fe:a9fe]"),
    *("[::ffff:168.63.129.16]", "[::ffff:0:127.0.0.1]", "[::127.0.0.1]", "[::a9fe:a9fe]"),
    *("[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[fc00::1]", "[fd00:ec2::254]"),
    *("[fec0::1]", "[ff02::1]", "[ff0e::1]", "[100::1]", "[2001:db8::1]", "[5f00::1]"),
    *("[64:ff9b::a9fe:a9fe]", "[64:ff9b::127.0.0.1]", "[64:ff9b::10.0.0.1]"),
    *("[64:ff9b:1::808:808]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2002:a00:1::]"),
    *("[2001:0:5ef5:79fd:0:0:80ff:fffe]", "[2001:0:808:808::5601:5601]"),
]
PUBLIC = [
    *("8.8.8.8", "134744072", "0x08080808", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.128.0.1"),
    *("168.63.129.17", "[2606:4700:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]"),
    *("[2002:808:808::]",),
]


@pytest.mark.parametrize("host", FORBIDDEN)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_private_address_is_connected_to(host, scheme, network):
    error = failure(f"{scheme}://{host}/latest/meta-data", allow_hosts=(), max_retries=2)
    assert isinstance(error, BlockedHost)
    assert not error.retryable
    assert not network.tried


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_are_connected_to(host, network):
    error = failure(f"http://{host}/", allow_hosts=())
    assert isinstance(error, FetchFailed)
    assert "refused" in error.message
    assert len(network.left) == 1


def test_a_name_is_judged_by_where_it_leads(server, network):
    network.names["innocent.example"] = ["127.0.0.1"]
    error = failure(server.url("/good.png", host="innocent.example"), allow_hosts=())
    assert isinstance(error, BlockedHost)
    assert not server.connections


def test_a_name_that_changes_its_mind_gains_nothing(server, network, pauses):
    """DNS rebinding: public when it is looked at, private when it is connected to."""
    network.names["rebind.example"] = [["8.8.8.8"], ["127.0.0.1"]]
    url = server.url("/good.png", host="rebind.example")
    changes = {"allow_hosts": (), "fetch_ports": ("*",)}
    assert isinstance(failure(url, **changes, max_retries=2), BlockedHost)
    assert network.tried == ["8.8.8.8"], "the address that was judged is the one connected to"
    assert len(pauses) == 1
    assert not server.connections


def test_only_the_allowed_of_a_names_addresses_are_tried(server, network):
    network.names["both.example"] = ["10.0.0.1", "::1", "127.0.0.1", "169.254.169.254"]
    url = server.url("/good.png", host="both.example")
    assert fetcher(allow_hosts=("127.0.0.1",)).fetch(url) == PNG
    assert network.tried == ["127.0.0.1"]


def test_the_next_address_is_tried_where_one_refuses(server, network):
    network.names["two.example"] = ["127.0.0.3", "127.0.0.1"]
    url = server.url("/good.png", host="two.example")
    assert fetcher(allow_hosts=("127.0.0.0/8",)).fetch(url) == PNG
    assert network.tried == ["127.0.0.3", "127.0.0.1"]


def test_a_machine_without_ipv6_still_fetches(server, network, monkeypatch):
    class OnlyIPv4(socket.socket):
        def __init__(self, family=socket.AF_INET, *args, **more):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args, **more)

    monkeypatch.setattr(socket, "socket", OnlyIPv4)
    network.names["two.example"] = ["::1", "127.0.0.1"]
    assert fetcher().fetch(server.url("/good.png", host="two.example")) == PNG


@pytest.mark.parametrize(
    "entry", ["127.0.0.1", "127.0.0.0/8", "127.1.2.3/8", "Images.Example", "images.example."]
)
def test_the_allow_list_takes_addresses_ranges_and_names(server, network, entry):
    network.names["images.example"] = ["127.0.0.1"]
    url = server.url("/good.png", host="images.example")
    assert fetcher(allow_hosts=("10.0.0.0/8", entry)).fetch(url) == PNG


@pytest.mark.parametrize("entry", ["::1", "[::1]", "::/64"])
def test_the_allow_list_takes_ipv6(entry):
    try:
        server = Server("::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server:
        assert fetcher(allow_hosts=(entry,)).fetch(server.url("/good.png")) == PNG


@pytest.mark.parametrize(
    "entry", ["127.0.0.2", "128.0.0.0/1", "example", "other.images.example", "::/0"]
)
def test_the_allow_list_takes_nothing_else(server, network, entry):
    network.names["images.example"] = ["127.0.0.1"]
    error = failure(server.url("/good.png", host="images.example"), allow_hosts=(entry,))
    assert isinstance(error, BlockedHost)
    assert "SCORE_ALLOW_HOSTS" in error.message


def test_a_mapped_address_is_the_address_it_maps(server):
    url = server.url("/good.png", host="::ffff:127.0.0.1")
    assert fetcher(allow_hosts=("127.0.0.1",)).fetch(url) == PNG


def test_a_name_that_is_allowed_lets_no_other_name_in(server, network):
    network.names |= {"mine.example": ["127.0.0.1"], "theirs.example": ["127.0.0.1"]}
    url = server.leading_to(server.url("/good.png", host="theirs.example"))
    url = url.replace("127.0.0.1", "mine.example", 1)
    assert isinstance(failure(url, allow_hosts=("mine.example",)), BlockedHost)
    assert server.requests == {"/to": 1}


@pytest.mark.parametrize(
    "to",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/metadata/instance",
        "http://[::ffff:169.254.169.254]/",
        "http://127.0.0.2/",
        "http://0x7f000002/",
        "https://localhost6.example/",
        "//168.63.129.16/",
    ],
)
def test_no_redirect_leads_to_a_private_address(server, network, to):
    network.names["localhost6.example"] = ["::1"]
    error = failure(server.leading_to(to), allow_hosts=("127.0.0.1",))
    assert isinstance(error, BlockedHost)
    assert set(network.tried) == {"127.0.0.1"}
    assert server.requests == {"/to": 1}


def test_proxies_of_the_environment_are_not_used(server, network, monkeypatch):
    proxy = f"http://127.0.0.1:{dead_port()}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.setenv(name.lower(), proxy)
    assert fetcher().fetch(server.url("/good.png")) == PNG
    assert isinstance(failure("http://10.0.0.1/"), BlockedHost)


# -- redirects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects_of_every_kind_are_followed(server, status):
    assert fetcher().fetch(server.leading_to("/good.png", status)) == PNG
    assert fetcher().fetch(server.leading_to(server.url("/good.jpg"), status)) == JPEG


@pytest.mark.parametrize("status", [201, 304, 305, 306, 404])
def test_other_statuses_are_not_redirects(server, status):
    assert isinstance(failure(server.leading_to("/good.png", status)), FetchFailed)


def test_as_many_redirects_as_allowed_are_followed(server):
    assert fetcher(max_redirects=5).fetch(server.url("/chain?left=5")) == PNG
    assert isinstance(failure(server.url("/chain?left=6"), max_redirects=5), FetchFailed)
    assert isinstance(failure(server.url("/chain?left=1"), max_redirects=0), FetchFailed)


def test_a_loop_ends(server):
    error = failure(server.url("/loop"), max_redirects=5, max_retries=3)
    assert error.message == "more than 5 redirects"
    assert server.requests["/loop"] == 6


def test_blanks_around_a_location_are_not_part_of_it(server):
    assert fetcher().fetch(server.url("/to-blanks")) == PNG


def test_a_location_that_is_said_twice_is_one(server):
    assert fetcher().fetch(server.url("/to-one-twice")) == PNG
    assert "several places" in failure(server.url("/to-two")).message


@pytest.mark.parametrize("route", ["/to-nowhere", "/to-empty"])
def test_a_redirect_to_nowhere_is_not_tried_again(server, route):
    error = failure(server.url(route), max_retries=3)
    assert "redirects to nowhere" in error.message
    assert server.requests == {route: 1}


def test_a_redirect_may_ask_for_patience(server, pauses):
    assert fetcher().fetch(server.url("/to-later?after=2")) == PNG
    assert pauses[0] == 2.0
    error = failure(server.url("/to-later?after=3600"))
    assert "redirects after 3600 s" in error.message
    assert error.retryable


@pytest.mark.parametrize("to", ["//{host}/good.png", "./deep/../good.png#part", "good.png"])
def test_a_location_may_be_relative(server, to):
    location = to.format(host=f"127.0.0.1:{server.port}")
    assert fetcher().fetch(server.leading_to(location)) == PNG


def test_a_redirect_may_change_the_scheme(server, authority):
    with Server(tls=authority.context()) as secure:
        fetching = fetcher(ca_bundle=str(authority.file))
        assert fetching.fetch(server.leading_to(secure.url("/good.png"))) == PNG
        assert fetching.fetch(secure.leading_to(server.url("/good.png"))) == PNG


def test_a_redirect_may_be_written_in_utf8(server):
    assert fetcher().fetch(server.url("/to-voilà")) == PNG  # whose last byte is a blank in Latin-1
    assert fetcher().fetch(server.url("/to-utf8")) == PNG


@pytest.mark.parametrize(
    ("to", "kind"),
    [
        ("file:///etc/passwd", BadUrl),
        ("ftp://127.0.0.1/cat.jpg", BadUrl),
        ("data:image/png;base64,AAAA", BadUrl),
        ("javascript:alert(1)", BadUrl),
        ("http://[", BadUrl),
        ("http://[::1", BadUrl),
        ("http://127.0.0.1:99999/", BadUrl),
        ("http://user:password@127.0.0.1/", BadUrl),
        ("/" + "x" * 9000, BadUrl),
    ],
)
def test_a_redirect_to_what_cannot_be_fetched_says_so(server, to, kind):
    assert isinstance(failure(server.leading_to(to)), kind)


@pytest.mark.parametrize("route", ["/to-nowhere", "/to-utf16"])
def test_a_redirect_to_nothing_is_a_failed_download(server, route):
    assert isinstance(failure(server.url(route)), FetchFailed)


# -- retries -----------------------------------------------------------------------------------


def test_pauses_double(server, pauses):
    error = failure(server.url("/fails"), max_retries=4, retry_wait=0.25)
    assert isinstance(error, FetchFailed)
    assert error.retryable
    assert server.requests["/fails"] == 5
    assert pauses == [0.25, 0.5, 1.0, 2.0]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server, status):
    url = server.url(f"/fails?status={status}&times=2")
    assert fetcher(max_retries=2).fetch(url) == PNG
    assert server.requests["/fails"] == 3


@pytest.mark.parametrize("status", [520, 599, 600, 999])
def test_a_status_that_nobody_has_defined_is_taken_for_500(server, status):
    """RFC 9110, 15: above 599, as a server's failure; 15.6: of 5xx, as 500."""
    url = server.url(f"/fails?status={status}&times=1")
    assert fetcher(max_retries=1).fetch(url) == PNG


@pytest.mark.parametrize(
    "status", [101, 201, 202, 204, 205, 206, 226, 304, 400, 401, 403, 404, 410, 418, 501]
)
def test_what_stays_is_not_tried_again(server, status):
    error = failure(server.url(f"/status?is={status}"), max_retries=2)
    assert isinstance(error, FetchFailed)
    assert not error.retryable
    assert str(status) in error.message
    assert server.requests["/status"] == 1


@pytest.mark.parametrize("route", ["/close", "/reset", "/cut-chunks", "/length-too-large"])
def test_a_broken_connection_is_tried_again(server, route):
    error = failure(server.url(route), max_retries=1)
    assert isinstance(error, FetchFailed)
    assert error.retryable
    assert server.requests[route] == 2


@pytest.mark.usefixtures("public")
def test_a_dead_port_is_tried_again(network):
    error = failure(f"http://127.0.0.1:{dead_port()}/", max_retries=2)
    assert isinstance(error, FetchFailed)
    assert error.retryable
    assert "refused" in error.message
    assert network.tried == ["127.0.0.1"] * 3


def test_a_name_that_nobody_has_is_not_tried_again(network):
    error = failure("http://nobody.example/", max_retries=2)
    assert isinstance(error, BlockedHost)
    assert not error.retryable
    assert network.asked == ["nobody.example"]


def test_a_name_server_that_is_busy_is_tried_again(monkeypatch):
    def busy(*_: object, **__: object) -> list:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", busy)
    assert failure("http://nobody.example/").retryable


def test_retry_after_in_seconds_is_honoured(server, pauses):
    assert fetcher(max_retries=1).fetch(server.url("/busy?after=2")) == PNG
    assert pauses == [2.0]


def test_retry_after_as_a_date_is_honoured(server, pauses):
    url = server.url(f"/busy?after={urllib.parse.quote(in_a_while(3))}")
    assert fetcher(max_retries=1).fetch(url) == PNG
    assert 1 < pauses[0] <= 3


def test_retry_after_cannot_shorten_the_pause(server, pauses):
    url = server.url(f"/busy?after={urllib.parse.quote(in_a_while(-100))}")
    assert fetcher(max_retries=1, retry_wait=0.5).fetch(url) == PNG
    assert pauses == [0.5]


@pytest.mark.parametrize(
    "after",
    ["3600", "9" * 400, in_a_while(3600), "Fri, 31 Dec 9999 23:59:59 GMT"],
    ids=["seconds", "many digits", "a date", "the last date"],
)
def test_a_pause_beyond_the_deadline_is_not_begun(server, pauses, after):
    url = server.url(f"/busy?after={urllib.parse.quote(after)}")
    error = failure(url, max_retries=3)
    assert isinstance(error, FetchFailed)
    assert error.retryable
    assert pauses == []


@pytest.mark.parametrize(
    "after",
    [
        *("", "soon", "-5", "1e3", "²", "Fri, 99 Foo 2024 00:00:00 GMT", "Mon, 01 Jan 2024"),
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999999",
    ],
)
def test_a_retry_after_that_says_nothing_is_overlooked(server, pauses, after):
    url = server.url(f"/busy?after={urllib.parse.quote(after)}")
    assert fetcher(max_retries=1, retry_wait=0.5).fetch(url) == PNG
    assert pauses == [0.5]


# -- servers as they are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "route",
    [
        *("/continue.png", "/hints.png", "/203.png", "/500-headers.png", "/odd-headers.png"),
        *("/trailers.png", "/chunked.png", "/until-close.png", "/http10.png", "/gzip.png"),
        *("/br.png", "/gzip-br.png", "/says-utf8.png"),
    ],
)
def test_an_image_is_read_however_its_server_sends_it(server, route):
    fetching = fetcher()
    assert fetching.fetch(server.url(route)) == PNG
    assert fetching.fetch(server.url("/good.jpg")) == JPEG, "nothing is left on the connection"


def test_an_image_that_is_labelled_as_gzip_is_taken_as_it_is(server):
    assert fetcher().fetch(server.url("/says-gzip.jpg")) == JPEG


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("/many-headers", "more than 1,000 header fields"),
        ("/giant-header", "more than 128 KiB of headers"),
        ("/hints-endless", "without end"),
        ("/endless-trailers", "trailers without end"),
        ("/gzip-chunks", "Transfer-Encoding: gzip, chunked"),
        ("/length-twice", "Content-Length: 3, 4"),
        ("/length-negative", "Content-Length: -1"),
        ("/length-words", "Content-Length: many"),
        ("/bad-gzip", "Content-Encoding gzip"),
        ("/cut-gzip", "Content-Encoding gzip"),
        ("/says-br", "Content-Encoding br"),
        ("/206.png", "answered 206 Partial Content"),
    ],
)
def test_what_no_retry_can_change_is_named(server, route, says):
    error = failure(server.url(route), max_retries=2)
    assert isinstance(error, FetchFailed)
    assert says in error.message
    assert not error.retryable
    assert server.requests[route] == 1


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("/negative-chunk", "without a size"),
        ("/hints-only", "within its headers"),
        ("/close-in-headers", "within its headers"),
        ("/garbage", "did not speak HTTP/1.1"),
        ("/no-status", "did not speak HTTP/1.1"),
        ("/cut-chunks", "within a chunk"),
        ("/length-too-large", "broke off"),
    ],
)
def test_an_answer_that_breaks_off_may_be_tried_again(server, route, says):
    error = failure(server.url(route), max_retries=1)
    assert isinstance(error, FetchFailed)
    assert says in error.message
    assert error.retryable
    assert server.requests[route] == 2


def test_a_connection_that_was_closed_meanwhile_costs_no_try(server):
    fetching = fetcher(max_retries=0)
    assert fetching.fetch(server.url("/good.png")) == PNG
    assert fetching.fetch(server.url("/drops-the-first.png")) == PNG
    assert server.connections == 2
    # Over a new connection, the same is the server's failure.
    with pytest.raises(FetchFailed):
        fetching.fetch(server.url("/close"))
    assert server.requests["/close"] == 2, "the kept connection's request went out again, once"


def test_what_follows_an_answer_is_not_taken_for_the_next_one(server):
    fetching = fetcher()
    for _ in range(3):
        assert fetching.fetch(server.url("/two-answers")) == PNG
        assert fetching.fetch(server.url("/good.jpg")) == JPEG
    assert server.connections == 4


def test_idle_connections_do_not_use_up_all_files(monkeypatch):
    monkeypatch.setattr(connections, "_OPEN", 4)
    fetching = Fetcher(Settings(allow_hosts=("127.0.0.1",)))
    with ExitStack() as stack:
        for _ in range(12):
            server = stack.enter_context(Server())
            assert fetching.fetch(server.url("/good.png")) == PNG
        open_now = [each for each in fetching._downloader._connections.opened._all if each.sock]
        assert len(open_now) <= 4


@pytest.mark.parametrize(
    ("route", "halved"),
    [
        *(("/status?is=429", True), ("/status?is=503", True), ("/silence", True)),
        *(("/close", True), ("/reset-in-body", True), ("/drip-body", True)),
        *(("/status?is=404", False), ("/status?is=500", False), ("/good.png", False)),
        *(("/bad-gzip", False), ("/to-nowhere", False), ("/huge-length", False)),
    ],
)
def test_a_host_that_is_busy_or_breaks_off_gets_fewer_downloads(server, route, halved):
    fetching = fetcher(read_timeout=0.2, row_deadline=0.5)
    with suppress(RowError):
        fetching.fetch(server.url(route))
    limit = fetching._downloader._hosts.limit(f"127.0.0.1:{server.port}")
    assert limit == (host_concurrency.START // 2 if halved else host_concurrency.START)


def test_one_rows_retry_after_does_not_fail_those_behind_it(server):
    fetching = fetcher(row_deadline=1.0)
    with pytest.raises(FetchFailed):
        fetching.fetch(server.url("/busy?after=3600"))
    began = time.monotonic()
    assert fetching.fetch(server.url("/good.png")) == PNG
    assert time.monotonic() - began > 0.3, "but they wait"


def test_a_fast_host_gets_more_downloads_at_a_time(server):
    fetching = fetcher(per_host=24, fetch_workers=100)
    urls = [server.url("/slow.png?ms=50")] * 150
    assert fetch_all(fetching, urls, workers=40) == [PNG] * 150
    assert 8 < server.most_at_once <= 24


def test_no_more_downloads_run_at_a_time_than_allowed(server, network):
    names = [f"{number}.example" for number in range(8)]
    network.names |= {name: ["127.0.0.1"] for name in names}
    urls = [server.url("/slow.png?ms=50", host=name) for name in names] * 3
    assert fetch_all(fetcher(fetch_workers=3), urls, workers=24) == [PNG] * 24
    assert server.most_at_once == 3


def test_a_download_that_failed_holds_no_memory_while_it_is_tried_again(server, monkeypatch):
    """There is room for one body. What the first try held, the second one would wait for."""
    monkeypatch.setattr("score.fetch.fetcher._BODIES", 1)
    fetching = Fetcher(
        Settings(allow_hosts=("127.0.0.1",), max_retries=1, retry_wait=0.01, max_image_bytes=KIB)
    )
    for route, says in [("/cut-chunks", "within a chunk"), ("/bad-gzip", "Content-Encoding")]:
        with fetching.holding(), pytest.raises(FetchFailed, match=says):
            fetching.fetch(server.url(route), until=time.monotonic() + 10)
    with fetching.holding():  # all of it is free again, within one block, too
        for _ in range(2):
            with pytest.raises(FetchFailed, match="within a chunk"):
                fetching.fetch(server.url("/cut-chunks"), until=time.monotonic() + 10)


# -- who asks ----------------------------------------------------------------------------------


def test_the_user_agent_names_the_project_and_whom_to_ask(server):
    fetcher().fetch(server.url("/good.png"))
    fetcher(user_agent="images/1.0 (+https://example.org/robot)").fetch(server.url("/good.png"))
    ours, theirs = server.heads
    assert f"user-agent: clip-endpoints/{__version__} (" in ours.lower()
    assert "SCORE_USER_AGENT" in ours
    assert "User-Agent: images/1.0 (+https://example.org/robot)" in theirs


# -- the clock rule ----------------------------------------------------------------------------

DRIPS = ["/drip-body", "/drip-chunks", "/drip-headers", "/drip-continues"]
SILENCES = ["/silence", "/silence-after-headers", "/silence-in-body"]


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("route", DRIPS)
def test_a_server_that_drips_is_cut_at_the_deadline(server, route):
    began = time.monotonic()
    error = failure(server.url(route), row_deadline=0.4, max_retries=5)
    assert isinstance(error, FetchTimeout)
    assert error.retryable
    assert 0.3 < time.monotonic() - began < 10
    assert server.requests[route] == 1


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("route", SILENCES)
def test_a_silent_server_is_left_after_the_read_timeout(server, route):
    began = time.monotonic()
    error = failure(server.url(route), read_timeout=0.2, row_deadline=60)
    assert isinstance(error, FetchTimeout)
    assert 0.1 < time.monotonic() - began < 10


@pytest.mark.usefixtures("public")
def test_redirects_and_retries_share_one_deadline(server):
    slow = server.url("/slow.png?ms=250")
    began = time.monotonic()
    error = failure(server.leading_to(server.leading_to(slow)), row_deadline=0.2, max_retries=9)
    assert isinstance(error, FetchTimeout)
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("says", [say_nothing, drip_handshake])
def test_a_server_that_never_comes_to_the_point_is_left(says):
    with Server(says=says) as server:
        began = time.monotonic()
        error = failure(server.url("/"), read_timeout=0.2, row_deadline=0.8)
    assert isinstance(error, FetchTimeout)
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("says", [say_nothing, drip_handshake])
def test_a_handshake_that_never_ends_is_left_after_the_read_timeout(says):
    with Server(says=says) as server:
        began = time.monotonic()
        error = failure(server.url("/", scheme="https"), read_timeout=0.2, row_deadline=60)
    assert isinstance(error, FetchTimeout)
    assert time.monotonic() - began < 10


def test_a_look_up_that_hangs_is_left(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30))
    began = time.monotonic()
    error = failure("http://slow.example/", connect_timeout=0.2)
    over.set()
    assert isinstance(error, FetchTimeout)
    assert time.monotonic() - began < 10


def test_an_address_that_does_not_answer_is_left_after_the_connect_timeout(network, monkeypatch):
    def swallowed(sock: socket.socket, _: object) -> None:
        threading.Event().wait(sock.gettimeout())
        raise TimeoutError

    monkeypatch.setattr(network, "connect", swallowed)
    began = time.monotonic()
    error = failure("http://8.8.8.8/", connect_timeout=0.2, row_deadline=60)
    assert isinstance(error, FetchTimeout)
    assert time.monotonic() - began < 10


def test_an_address_that_swallows_packets_is_left_and_closed(network, monkeypatch):
    made: list[socket.socket] = []

    class Swallowed(socket.socket):
        def connect(self, _: object) -> None:
            made.append(self)
            threading.Event().wait(self.gettimeout())
            raise TimeoutError

    monkeypatch.setattr(socket, "socket", Swallowed)
    network.names["far.example"] = ["8.8.8.8", "8.8.4.4", "1.1.1.1"]
    error = failure("http://far.example/", connect_timeout=10, row_deadline=0.3)
    assert isinstance(error, FetchTimeout)
    assert [sock.fileno() for sock in made] == [-1] * len(made)


def test_a_deadline_between_two_addresses_leaves_no_socket_open(network, monkeypatch):
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            made.append(self)

        def connect(self, _: object) -> None:
            threading.Event().wait(0.2)
            raise ConnectionRefusedError

    monkeypatch.setattr(socket, "socket", Noted)
    network.names["far.example"] = ["8.8.8.8", "8.8.4.4"]
    error = failure("http://far.example/", row_deadline=0.1)
    assert isinstance(error, FetchTimeout)
    assert len(made) == 4, "of each the duplicate by which it would be interrupted, too"
    assert {sock.fileno() for sock in made} == {-1}


# -- many at a time ----------------------------------------------------------------------------


def wait_for(holds: Callable[[], object]) -> None:
    while not holds():
        threading.Event().wait(0.01)


def fetch_all(fetching: Fetcher, urls: list[str], workers: int = 8) -> list[bytes | RowError]:
    def one(url: str) -> bytes | RowError:
        try:
            return fetching.fetch(url)
        except RowError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, urls))


@pytest.mark.parametrize("per_host", [1, 3])
def test_one_host_gets_no_more_downloads_at_a_time_than_allowed(server, per_host):
    urls = [server.url("/slow.png?ms=80")] * 8
    assert fetch_all(fetcher(per_host=per_host), urls) == [PNG] * 8
    assert server.most_at_once == per_host


def test_another_host_does_not_wait_for_a_slow_one(server, network):
    network.names |= {"slow.example": ["127.0.0.1"], "quick.example": ["127.0.0.1"]}
    fetching = fetcher(per_host=1)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetching.fetch, server.url("/held.png", host="slow.example"))
        wait_for(lambda: server.requests["/held.png"])
        assert fetching.fetch(server.url("/good.png", host="quick.example")) == PNG
        assert not slow.done()
        server.release.set()
        assert slow.result() == PNG


def test_waiting_in_our_own_queue_is_not_the_servers_fault(server):
    urls = [server.url("/slow.png?ms=200")] * 8
    assert fetch_all(fetcher(per_host=1, row_deadline=1.2), urls) == [PNG] * 8


def test_a_pause_before_a_retry_blocks_nobody(server, monkeypatch):
    pausing, over = threading.Event(), threading.Event()
    monkeypatch.setattr(Cancellation, "sleep", lambda *_: (pausing.set(), over.wait(10)))
    fetching = fetcher(per_host=1, max_retries=1)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(fetching.fetch, server.url("/fails?times=1"))
        assert pausing.wait(10)
        assert fetching.fetch(server.url("/good.png")) == PNG
        assert not failing.done()
        over.set()
        assert failing.result() == PNG


def test_connections_are_used_again(server):
    fetching = fetcher()
    for route in ["/good.png", "/chunked.png", "/gzip.png", "/good.jpg"] * 3:
        assert fetching.fetch(server.url(route)) in (PNG, JPEG)
    assert server.connections == 1


def test_no_more_connections_are_opened_than_downloads_run_at_a_time(server):
    fetch_all(fetcher(per_host=2), [server.url("/slow.png?ms=10")] * 20)
    assert server.connections <= 2


@pytest.mark.parametrize("bad", ["/cut-chunks", "/silence-in-body", "/endless", "/reset-in-body"])
def test_a_connection_that_failed_is_not_used_again(server, bad):
    fetching = fetcher(read_timeout=0.2)
    with pytest.raises(RowError):
        fetching.fetch(server.url(bad))
    assert fetching.fetch(server.url("/good.png")) == PNG
    assert server.connections == 2


def test_a_connection_that_the_server_closed_is_not_held_against_it(server):
    fetching = fetcher()
    for _ in range(3):
        assert fetching.fetch(server.url("/until-close.png")) == PNG
        assert fetching.fetch(server.url("/http10.png")) == PNG


# -- TLS ---------------------------------------------------------------------------------------


def test_a_server_that_our_own_authority_vouches_for_is_trusted(authority):
    with Server(tls=authority.context()) as server:
        fetching = fetcher(ca_bundle=str(authority.file))
        assert fetching.fetch(server.url("/good.png")) == PNG
        assert fetching.fetch(server.url("/chunked.png")) == PNG
        assert server.connections == 1


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize(
    ("context", "says"),
    [
        (lambda authority: authority.selfsigned(), "self-signed"),
        (lambda authority: authority.context(days=-1), "expired"),
        (lambda authority: authority.context("127.0.0.2"), "mismatch"),
    ],
)
def test_a_bad_certificate_is_refused_and_the_reason_said(authority, context, says):
    with Server(tls=context(authority)) as server:
        error = failure(server.url("/good.png"), ca_bundle=str(authority.file), max_retries=2)
        assert isinstance(error, FetchFailed)
        assert not error.retryable
        assert says in error.message
        assert not server.requests


def test_an_unknown_authority_is_refused(authority):
    with Server(tls=authority.context()) as server:
        assert isinstance(failure(server.url("/good.png")), FetchFailed)
        assert not server.requests


@pytest.mark.usefixtures("public")
def test_plain_http_on_an_https_url_fails(server):
    error = failure(server.url("/good.png", scheme="https"))
    assert isinstance(error, FetchFailed)
    assert "TLS" in error.message


def test_tls_on_an_http_url_fails(authority):
    with Server(tls=authority.context()) as server:
        assert isinstance(failure(server.url("/good.png", scheme="http")), FetchFailed)


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("route", ["/drip-body", "/drip-headers"])
def test_the_deadline_holds_over_tls(authority, route):
    with Server(tls=authority.context()) as server:
        began = time.monotonic()
        error = failure(server.url(route), ca_bundle=str(authority.file), row_deadline=0.4)
        assert isinstance(error, FetchTimeout)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("content", [None, "this is no certificate"])
def test_an_unusable_ca_bundle_is_a_setting_error(tmp_path, content):
    file = tmp_path / "bundle.pem"
    if content:
        file.write_text(content)
    with pytest.raises(SettingError, match=r"bundle\.pem"):
        fetcher(ca_bundle=str(file))


# -- foreign errors ----------------------------------------------------------------------------


def _family(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(_family(kind) for kind in base.__subclasses__()))


def _foreign() -> list[type[BaseException]]:
    """Every error class that urllib3, http.client, ssl and the socket layer have."""
    bases = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, UnicodeError)
    modules = ("urllib3", "http", "ssl", "socket", "_socket", "builtins", "zlib")
    kinds = {kind for base in bases for kind in _family(base)}
    known = [kind for kind in kinds if kind.__module__.split(".")[0] in modules]
    return sorted(known, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("kind", _foreign(), ids=lambda kind: kind.__qualname__)
@pytest.mark.parametrize("step", [(Connections, "_request_once"), (Downloader, "_body")])
def test_every_foreign_error_is_translated(server, monkeypatch, kind, step):
    foreign = kind.__new__(kind)  # their constructors want all sorts of things

    def broken(*_: object) -> None:
        raise foreign

    monkeypatch.setattr(*step, broken)
    error = failure(server.url("/good.png"))
    assert isinstance(error, BadUrl | FetchFailed | FetchTimeout)
    assert error.__cause__ is foreign


def test_the_foreign_errors_are_really_all():
    assert {
        urllib3.exceptions.ProtocolError,
        urllib3.exceptions.DecodeError,
        urllib3.exceptions.IncompleteRead,
        http.client.BadStatusLine,
        http.client.LineTooLong,
        http.client.RemoteDisconnected,
        ssl.SSLCertVerificationError,
        ssl.SSLEOFError,
        socket.gaierror,
        TimeoutError,
        ConnectionResetError,
    } <= set(_foreign())


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, TypeError, MemoryError])
def test_a_bug_of_ours_is_not_taken_for_a_bad_row(server, monkeypatch, kind):
    def broken(*_: object) -> None:
        raise kind

    monkeypatch.setattr(Connections, "_request_once", broken)
    with pytest.raises(kind):
        fetcher().fetch(server.url("/good.png"))


def test_whatever_a_server_sends_is_bytes_or_a_row_error(server):
    fetching = fetcher()  # the server always closes, so that not even a busy machine is late

    def survives(seed: int) -> bool:
        try:
            return isinstance(fetching.fetch(server.url(f"/noise?seed={seed}")), bytes)
        except RowError as error:
            return error.code in ("fetch_failed", "bad_url", "too_many_bytes", "blocked_host")

    with ThreadPoolExecutor(4) as pool:
        outcome = list(pool.map(survives, range(400)))
    assert all(outcome), [seed for seed, fine in enumerate(outcome) if not fine]


def test_whatever_a_cell_says_is_bytes_or_a_row_error(root, network):
    dice = random.Random(7)
    letters = "aZ09+/=-_%.:@?#[]\\ \t\n\0\x7fü漢\ud800\udfff€"
    starts = ["", "http://", "https://", "data:", "data:;base64,", "http://[", "../", "file:"]
    fetching = fetcher(allow_hosts=())
    shown: list[str] = []
    for _ in range(3000):
        cell = dice.choice(starts) + "".join(dice.choices(letters, k=dice.randrange(12)))
        try:
            fetching.fetch(cell, root)
        except RowError as error:
            shown.append(error.message)
    assert all(message.isprintable() for message in shown)
    assert not network.tried


# -- what an error may say ---------------------------------------------------------------------

SECRET = "sig=SECRET"


def assert_secret_kept(error: RowError) -> None:
    assert "SECRET" not in str(error)
    assert "Traceback" not in str(error)
    assert "0x" not in str(error), "no object's repr"
    assert len(str(error)) < 300


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_no_message_shows_a_signature(server, route, caplog):
    caplog.set_level(logging.DEBUG)
    url = server.url(f"{route}?{SECRET}&url=http://[&is=404&left=9")
    try:
        fetcher(read_timeout=0.1, row_deadline=0.1).fetch(url)
    except RowError as error:
        assert_secret_kept(error)
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "cell",
    [
        f"http://[/?{SECRET}",
        f"http://127.0.0.1:99999/?{SECRET}",
        f"http:///?{SECRET}",
        f"http://nobody.example?{SECRET}",
        f"http://10.0.0.1?{SECRET}",
        f"http://{'a' * 500}.example/?{SECRET}",
        f"//127.0.0.1/?{SECRET}",
        f"127.0.0.1/cat.png?{SECRET}",
        "http://user:SECRET@127.0.0.1/",
        "http://user:SECRET@/",
        "http://user:SECRET@[",
        "ftp://user:SECRET@127.0.0.1/",
        "//user:SECRET@127.0.0.1/",
    ],
)
def test_no_message_about_a_url_shows_its_secrets(cell):
    assert_secret_kept(failure(cell))


def test_a_message_shows_only_the_beginning_of_a_long_cell():
    assert len(failure("!" * 10_000).message) < 150
