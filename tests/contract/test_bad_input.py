"""One table of what may be wrong with a row, and what its record then says.

Each bad row goes through the real `Embedder` between two good ones: their vectors must not change,
the bad one's error must carry the right code and column, and all of it must take little time.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder, parts_of
from score.errors import ROW_CODES, RowsFailed
from score.fetch import address_rule
from score.settings import Settings
from tests.images.test_images_bad import BOMBS, DAMAGED
from tests.support import bad_images
from tests.support.bad_images import FILES, OTHER_FORMATS, encoded, whole
from tests.support.hostile import JPEG, PNG, Authority, Network, Server, dead_port, say_nothing

SETTINGS = Settings(
    allow_hosts=("127.0.0.1",),
    connect_timeout=0.5,
    read_timeout=0.5,
    row_deadline=1.0,
    max_retries=1,
    retry_wait=0.01,
    max_image_bytes=256 * 1024,
    max_pixels=1_000_000,
)
PARAMS = Params(truncate="error", on_error="report")
GOOD = (Row(image=PNG), Row(image=JPEG, text="a photo of a cat"))
SECONDS = 5.0


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Strange:
    """Of a type that nobody expects."""


EMPTY = [None, "", " ", "\t\r\n ", "<NA>", float("nan"), np.float32("nan"), b"", bytearray()]
TYPES = [0, 7, 1.5, float("inf"), True, False, [], ["cat"], {}, {"a": 1}, (), 1j, Strange()]

Cases = dict[str, tuple[str, object]]
"""What is wrong → (the code that says so, the cell)."""

TEXTS: Cases = {
    **{f"{cell!r:.20}": ("bad_type", cell) for cell in TYPES},
    "bytes": ("bad_type", b"a photo of a cat"),
    "array": ("bad_type", np.zeros(3)),
    "first half of a character": ("bad_type", "a cat \ud83d"),
    "second half of a character": ("bad_type", "\udc31 a cat"),
    "too long": ("text_too_long", "cat " * 200),
    "too long in one word": ("text_too_long", "x" * 5000),
}

IMAGES: Cases = {
    **{f"{cell!r:.20}": ("bad_type", cell) for cell in TYPES},
    "array": ("bad_type", np.zeros((4, 4, 3), np.uint8)),
    "open image": ("bad_type", whole()),
    # Base64 that is none.
    "one letter": ("bad_base64", "A"),
    "a letter too many": ("bad_base64", "AAAAA"),
    "padding in the middle": ("bad_base64", "AA==AA=="),
    "a foreign letter": ("bad_base64", in_base64(PNG)[:-8] + "*AAAAAA="),
    "half a character": ("bad_base64", "\ud800"),
    "file name": ("bad_base64", "cat.jpg"),
    "path": ("bad_base64", "../../etc/pass.wd"),
    "sentence": ("bad_base64", "a photo of a cat, please"),
    "bytes, printed": ("bad_base64", "b'iVBORw0KGgo='"),
    "URL without a scheme": ("bad_base64", "127.0.0.1/cat.png"),
    "data: without a comma": ("bad_base64", "data:image/png;base64"),
    "data: of half a character": ("bad_base64", "data:,\ud800"),
    "data: of no base64": ("bad_base64", "data:image/png;base64,*"),
    # Bytes that are no image, or not a whole one, or far too much of one.
    "data: of nothing": ("not_an_image", "data:image/png;base64,"),
    "data: of text": ("not_an_image", "data:,a%20cat"),
    "a word that is base64": ("not_an_image", "word"),
    "an absolute path that is base64": ("not_an_image", "/etc/passwd"),
    **{name: ("not_an_image", make()) for name, make in OTHER_FORMATS.items() if make()},
    **{f"half a {name}": ("truncated_image", half) for name, half in bad_images.halves()},
    **{name: ("truncated_image", make()) for name, make in DAMAGED.items()},
    **{name: ("too_many_pixels", make()) for name, make in BOMBS.items()},
    "strip, upright": ("too_many_pixels", encoded(Image.new("L", (1, 100_000)), "PNG")),
    "strip, lying": ("too_many_pixels", encoded(Image.new("L", (65_000, 1)), "JPEG")),
    "too many bytes": ("too_many_bytes", bytes(256 * 1024 + 1)),
    "too many bytes in base64": ("too_many_bytes", "A" * 400_000),
    # URLs that cannot be fetched as written, or may not.
    "ftp": ("bad_url", "ftp://127.0.0.1/cat.png"),
    "file": ("bad_url", "file:///etc/passwd"),
    "s3": ("bad_url", "s3://bucket/cat.png"),
    "no host": ("bad_url", "http://"),
    "no host, but a path": ("bad_url", "https:///cat.png"),
    "port in words": ("bad_url", "http://127.0.0.1:eighty/"),
    "port too high": ("bad_url", "http://127.0.0.1:65536/"),
    "user and password": ("bad_url", "http://user:password@127.0.0.1/cat.png"),
    "9,000 characters": ("bad_url", "http://127.0.0.1/" + "x" * 9000),
    "space in the host": ("bad_url", "http://two words/cat.png"),
    "line break in the host": ("bad_url", "http://127.0.0.1\r\nX: y/cat.png"),
    "zero byte in the host": ("bad_url", "http://127.0.0.1\0/cat.png"),
    "half an IPv6 address": ("bad_url", "http://[::1/cat.png"),
    "half a character in the host": ("bad_url", "http://\ud800/cat.png"),
    "private address": ("blocked_host", "http://10.0.0.1/cat.png"),
    "this machine, as a number": ("blocked_host", "http://2130706434/cat.png"),
    "metadata service": ("blocked_host", "http://169.254.169.254/metadata/identity"),
    "metadata service, in IPv6": ("blocked_host", "http://[::ffff:a9fe:a9fe]/metadata"),
    "name that leads to a private address": ("blocked_host", "http://inside.example/cat.png"),
    "name that nobody has": ("blocked_host", "http://nobody.example/cat.png"),
    "dead port": ("fetch_failed", "{dead}/cat.png"),
}

URLS: Cases = {
    route: (code, route if route.startswith("{") else "{plain}" + route)
    for code, routes in {
        "not_an_image": ["/html", "/json", "/svg", "/empty", "/random"],
        "truncated_image": [
            *("/truncated.jpg", "/truncated.png", "/length-too-small"),
        ],
        "too_many_pixels": ["/bomb.png"],
        "too_many_bytes": [
            *("/endless", "/endless-chunks", "/huge-length", "/gzip-bomb", "/gzip-gzip-bomb"),
        ],
        "fetch_timeout": [
            *("/drip-body", "/drip-chunks", "/drip-headers", "/drip-continues"),
            *("/silence", "/silence-after-headers", "/silence-in-body"),
            *("{mute}/good.png", "{mute-tls}/good.png"),
        ],
        "bad_url": [
            *("/to?url=file:///etc/passwd", "/to?url=ftp://127.0.0.1/", "/to?url=http://["),
            *("/to?url=data:image/png;base64,AAAA", "/to?url=http://user@127.0.0.1/"),
        ],
        "blocked_host": [
            *("/to?url=http://10.0.0.1/", "/to?url=http://169.254.169.254/metadata"),
            *("/to?url=http://127.0.0.2/", "/to?url=//0x7f000002/", "/to?url=http://[::1]/"),
        ],
        "fetch_failed": [
            *("/loop", "/chain?left=6", "/to-nowhere", "/to-utf16", "/to?url={dead}/"),
            *("/status?is=204", "/status?is=403", "/status?is=404", "/status?is=410"),
            *("/fails?status=500", "/fails?status=503", "/fails?status=429"),
            *("/close-in-headers", "/cut-gzip", "/says-br", "/length-negative", "/hints-only"),
            *("/hints-endless", "/negative-chunk", "/gzip-chunks", "/206.png", "/to-empty"),
            *("/busy?after=3600&times=99", "/bad-gzip", "/length-too-large", "/length-twice"),
            *("/length-digits", "/cut-chunks", "/bad-chunks", "/close", "/reset"),
            *("/reset-in-body", "/garbage", "/no-status", "/giant-header", "/many-headers"),
            *("{tls}/good.png", "{tls-as-http}/good.png", "{http-as-tls}/good.png"),
        ],
    }.items()
    for route in routes
}


def rows() -> Iterator[tuple[str, str, str | None, Row]]:
    """(id, code, column, row) of every case, alone and with a good cell beside it."""
    for number, cell in enumerate(EMPTY):
        yield f"nothing: {cell!r}", "empty_row", None, Row(cell, EMPTY[-number])
    for name, (code, cell) in TEXTS.items():
        yield f"text: {name}", code, "text", Row(None, cell)
        yield f"text beside an image: {name}", code, "text", Row(PNG, cell)
    for name, (code, cell) in IMAGES.items():
        yield f"image: {name}", code, "image", Row(cell, "")
        spelled = in_base64(cell) if isinstance(cell, bytes) else cell
        yield f"image beside a text: {name}", code, "image", Row(spelled, "a cat")
    for name, (code, cell) in URLS.items():
        yield f"URL: {name}", code, "image", Row(cell)
    yield "both bad: the text is said", "bad_type", "text", Row("*", 7)


TABLE = [pytest.param(code, column, row, id=name) for name, code, column, row in rows()]


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[dict[str, str]]:
    """What the words in braces stand for."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    with (
        Server() as plain,
        Server(tls=authority.selfsigned()) as tls,
        Server(says=say_nothing) as mute,
    ):
        yield {
            "{plain}": plain.url(""),
            "{http-as-tls}": plain.url("", scheme="https"),
            "{tls}": tls.url(""),
            "{tls-as-http}": tls.url("", scheme="http"),
            "{mute}": mute.url(""),
            "{mute-tls}": mute.url("", scheme="https"),
            "{dead}": f"http://127.0.0.1:{dead_port()}",
        }


@pytest.fixture(scope="module")
def impatient() -> Iterator[Embedder]:
    """The embedded model with short times, and with one thread.

    On a machine that is busy otherwise, two threads that wait for each other take twenty times the
    time of one, and the clocks here are short.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Embedder.load(settings=SETTINGS)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def wanted(impatient) -> list[Record]:
    """What the good rows say when they are alone."""
    return [record for row in GOOD for record in impatient.embed([row], PARAMS)]


@pytest.fixture(autouse=True)
def network(monkeypatch) -> Iterator[Network]:
    network = Network().install(monkeypatch)
    network.names["inside.example"] = ["192.168.0.1"]
    # The servers here stand for public ones, of whose failures codes say more.
    is_public = address_rule.is_public
    monkeypatch.setattr(
        address_rule, "is_public", lambda ip: str(ip) == "127.0.0.1" or is_public(ip)
    )
    yield network
    assert not network.left, "a test must not leave the machine, and no address here is public"


@pytest.fixture(autouse=True)
def _up(impatient, servers, network) -> None:
    """The servers, which are silent to one row after the other, are not held to be down."""
    impatient.embed_image(f"{servers['{plain}']}/good.png")


def at(servers: dict[str, str], row: Row) -> Row:
    image = row.image
    if isinstance(image, str):
        for word, address in servers.items():
            image = image.replace(word, address)
    return Row(image, row.text)


def assert_same(record: Record, wanted: Record) -> None:
    assert record.error is None
    for vector, other in [
        (record.image_features, wanted.image_features),
        (record.text_features, wanted.text_features),
    ]:
        assert (vector is None) == (other is None)
        if vector is not None:
            np.testing.assert_allclose(vector, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(("code", "column", "row"), TABLE)
def test_a_bad_row_is_answered_with_its_code_and_its_neighbours_with_vectors(
    impatient, servers, wanted, code, column, row
):
    began = time.monotonic()
    before, bad, after = impatient.embed([GOOD[0], at(servers, row), GOOD[1]], PARAMS)
    assert time.monotonic() - began < SECONDS
    assert bad.error is not None
    assert (bad.error.code, bad.error.column) == (code, column), bad.error.message
    assert bad.image_features is None
    assert bad.text_features is None
    assert_same(before, wanted[0])
    assert_same(after, wanted[1])


def test_the_table_is_long_and_knows_every_code():
    assert len(TABLE) >= 60
    assert {code for _, code, _, _ in rows()} == set(ROW_CODES)


@pytest.mark.slow
def test_all_bad_rows_may_come_at_once(impatient, servers, wanted):
    """Every row of the table in one stream, each followed by a good one; with time for a busy
    machine, on which every row would be late else."""
    mixed = [row for *_, bad in rows() for row in (at(servers, bad), GOOD[1])]
    settings = replace(SETTINGS, connect_timeout=4, read_timeout=4, row_deadline=8)
    records = list(Embedder(*parts_of(impatient), settings).embed(mixed, PARAMS))
    assert len(records) == 2 * len(TABLE)
    said = [(record.error.code if record.error else None) for record in records[::2]]
    # Rows of a host that has answered none of several are given up with another code; and which of
    # two ends of a download comes first is a matter of time.
    as_good = {("fetch_timeout", "fetch_failed"), ("fetch_failed", "fetch_timeout")}
    table = zip(said, rows(), strict=True)
    wrong = [(name, code, got) for got, (name, code, *_) in table if got != code]
    assert [case for case in wrong if case[1:] not in as_good] == []
    for record in records[1::2]:
        assert_same(record, wanted[1])


def test_a_request_that_raises_names_every_bad_row(impatient):
    bad = [("bad_base64", Row("*")), ("bad_type", Row(None, 7)), ("empty_row", Row())]
    mixed = [row for _, row in bad for row in (GOOD[0], row)]
    with pytest.raises(RowsFailed) as caught:
        impatient.answer(mixed)
    named = [(problem["index"], problem["code"]) for problem in caught.value.rows]
    assert named == [(1, "bad_base64"), (3, "bad_type"), (5, "empty_row")]


@pytest.mark.parametrize("route", ["/good.png", "/chain?left=5", "/busy?after=0", "/gzip.png"])
def test_what_a_good_server_does_is_fine(impatient, servers, wanted, route):
    (record,) = impatient.embed([Row(servers["{plain}"] + route)], PARAMS)
    assert_same(record, wanted[0])


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_has_a_vector(impatient, name):
    (record,) = impatient.embed([Row(in_base64(FILES[name]()))], PARAMS)
    assert record.error is None
    assert record.image_features is not None
    assert np.isfinite(record.image_features).all()
