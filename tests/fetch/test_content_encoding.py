"""Bodies that a server has encoded, says that it has, or that bloat when they are decoded."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path

import brotli
import pytest

from score.errors import FetchFailed
from score.fetch import content_encoding
from tests.support.hostile import JPEG, PNG

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATA = Path(__file__).parents[1] / "data"
LIMIT = 100_000


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush()


CODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "identity": bytes,
    "": bytes,
    " , identity ,": bytes,
}


def decoded(body: bytes, header: str, limit: int = LIMIT) -> bytes:
    return content_encoding.decoded(body, header, limit)


@pytest.mark.parametrize("name", CODERS)
def test_every_coding_is_undone(name: str) -> None:
    assert decoded(CODERS[name](PNG), name) == PNG


def test_deflate_without_zlibs_header_is_read_as_well() -> None:
    assert decoded(raw_deflate(PNG), "deflate") == PNG


@pytest.mark.parametrize("first", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("second", ["gzip", "deflate", "br", "zstd", "identity"])
def test_the_coding_that_was_applied_last_is_undone_first(first: str, second: str) -> None:
    assert decoded(CODERS[second](CODERS[first](PNG)), f"{first}, {second}") == PNG


def test_an_image_that_a_server_sent_in_brotli() -> None:
    found = decoded((DATA / "apple.png.br").read_bytes(), "br")
    assert found.startswith(b"\x89PNG\r\n\x1a\n")
    assert found.endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize("coder", [gzip.compress, zstd.compress])
def test_members_follow_one_another(coder) -> None:
    name = "gzip" if coder is gzip.compress else "zstd"
    assert decoded(coder(PNG[:100]) + coder(b"") + coder(PNG[100:]), name) == PNG
    assert decoded(coder(PNG) + b"\0\0 padding", name) == PNG


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_without_end_are_refused(name: str) -> None:
    with pytest.raises(FetchFailed, match="more than 100 parts"):
        decoded(CODERS[name](b"") * 5000, name)


# -- labels that are false ----------------------------------------------------------------------

FALSE = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "aws-chunked", "utf-8", "gzip, br"]


@pytest.mark.parametrize("name", FALSE)
@pytest.mark.parametrize("image", [PNG, JPEG])
def test_an_image_that_is_labelled_falsely_is_taken_as_it_is(name: str, image: bytes) -> None:
    assert decoded(image, name) == image


def test_an_image_that_is_encoded_once_and_labelled_twice() -> None:
    assert decoded(gzip.compress(JPEG), "gzip, gzip") == JPEG


@pytest.mark.parametrize("name", FALSE)
def test_another_body_that_is_labelled_falsely_is_an_error_that_names_the_label(name: str) -> None:
    with pytest.raises(FetchFailed, match=f"Content-Encoding {name.split()[-1]}") as caught:
        decoded(b"this is not encoded", name)
    assert not caught.value.retryable


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_body_that_is_cut_short_is_no_image(name: str, cut: int) -> None:
    with pytest.raises(FetchFailed, match=f"Content-Encoding {name}"):
        decoded(CODERS[name](PNG)[:-cut], name)


@pytest.mark.parametrize(("name", "package"), [("br", "brotli"), ("zstd", "backports")])
def test_a_decoder_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "backports" and sys.version_info >= (3, 14):
        pytest.skip("part of Python")
    with pytest.raises(FetchFailed, match=f"needs the Python package {package}"):
        decoded(CODERS[name](PNG), name)


def test_a_label_is_shown_short_and_printable() -> None:
    with pytest.raises(FetchFailed) as caught:
        decoded(b"x", "\x1b[2J" + "x" * 500)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 100


def test_codings_are_not_undone_without_end() -> None:
    assert decoded(PNG, "gzip" + ", identity" * 50) == PNG
    with pytest.raises(FetchFailed, match="more than 5 codings"):
        decoded(PNG, "gzip" + ", gzip" * 5)


# -- bombs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_ends_a_byte_above_the_limit(name: str) -> None:
    assert len(decoded(CODERS[name](bytes(2 * 2**20)), name)) == LIMIT + 1
    assert len(decoded(CODERS[name](bytes(LIMIT)), name)) == LIMIT
    assert len(decoded(CODERS[name](bytes(LIMIT + 1)), name)) == LIMIT + 1


def test_a_bomb_of_many_members_ends_at_the_limit() -> None:
    assert len(decoded(gzip.compress(bytes(3000)) * 90, "gzip")) == LIMIT + 1


def test_a_bomb_in_a_bomb_ends_at_the_limit() -> None:
    inner = gzip.compress(bytes(20 * 2**20))
    assert len(decoded(gzip.compress(inner), "gzip, gzip")) == LIMIT + 1


def test_zstd_may_not_ask_for_a_window_of_gigabytes() -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    coder = zstd.ZstdCompressor(options=options)
    wide = coder.compress(bytes(20 * 2**20)) + coder.flush()
    with pytest.raises(FetchFailed, match="zstd"):
        decoded(wide, "zstd")
