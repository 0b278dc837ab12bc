"""How an answer's bytes are read: the rules of RFC 9112, and the faults of servers."""

from __future__ import annotations

import http.client
import io
import itertools

import pytest

from score.fetch.framing import Chunks, Head, Malformed, read_head

OK = b"HTTP/1.1 200 OK\r\n"


def stream(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]


def head(*lines: bytes, status: bytes = OK) -> Head:
    return read_head(stream(status + b"".join(line + b"\r\n" for line in (*lines, b""))))


# -- status lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "version", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n", 11, 200, "OK"),
        (b"HTTP/1.1 200\r\n", 11, 200, ""),
        (b"HTTP/1.1 200 \r\n", 11, 200, ""),
        (b"HTTP/1.1  404  Not here\n", 11, 404, "Not here"),
        (b"HTTP/1.0 203 \xc3\xbc\r\n", 10, 203, "Ã¼"),
        (b"HTTP/1.1 999 Request denied\r\n", 11, 999, "Request denied"),
        (b"HTTP/1.7 200 OK\r\n", 11, 200, "OK"),
    ],
)
def test_a_status_line_is_read(line: bytes, version: int, status: int, reason: str) -> None:
    found = read_head(stream(line + b"\r\n"))
    assert (found.version, found.status, found.reason) == (version, status, reason)


@pytest.mark.parametrize(
    "line",
    [
        *(b"HTTP/1.1 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 000 OK"),
        *(b"HTTP/1.1 -20 OK", b"HTTP/1.1 200OK", b"HTTP/2 200 OK", b"HTTP/0.9 200 OK"),
        *(b"HTTP/1.10 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"<html>", b"", b"\0\xff"),
    ],
)
def test_what_is_no_status_line_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed, match="did not speak HTTP"):
        read_head(stream(line + b"\r\n\r\n"))


def test_an_empty_stream_is_a_connection_that_was_closed() -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        read_head(stream(b""))


@pytest.mark.parametrize("cut", range(1, 34))
def test_a_head_that_is_cut_is_no_answer(cut: int) -> None:
    whole = OK + b"Content-Length: 5\r\n\r\n"
    assert cut < len(whole)
    with pytest.raises(Malformed) as caught:
        read_head(stream(whole[:cut]))
    assert caught.value.retryable


# -- informational answers ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [100, 102, 103, 199])
@pytest.mark.parametrize("count", [1, 2, 100])
def test_informational_answers_are_skipped(status: int, count: int) -> None:
    interim = b"HTTP/1.1 %d Wait\r\nLink: </style.css>; rel=preload\r\nX: y\r\n\r\n" % status
    found = read_head(stream(interim * count + OK + b"X: z\r\n\r\nbody"))
    assert (found.status, found.fields) == (200, (("X", "z"),))


def test_informational_answers_without_end_are_refused() -> None:
    with pytest.raises(Malformed, match="without end") as caught:
        read_head(stream(b"HTTP/1.1 100 Continue\r\n\r\n" * 101 + OK + b"\r\n"))
    assert not caught.value.retryable


def test_an_answer_may_end_after_the_informational_one() -> None:
    with pytest.raises(Malformed, match="broke off"):
        read_head(stream(b"HTTP/1.1 103 Early Hints\r\n\r\n"))


def test_switching_protocols_is_final() -> None:
    found = read_head(stream(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK))
    assert found.status == 101
    assert not found.persists, "no answer of ours comes after it"


# -- header fields ------------------------------------------------------------------------------


def test_a_thousand_fields_are_read_and_no_more() -> None:
    fields = [b"X-%d: y" % number for number in range(1000)]
    assert len(head(*fields).fields) == 1000
    with pytest.raises(Malformed, match="more than 1,000 header fields") as caught:
        head(*fields, b"One: more")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "data",
    [
        OK + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
        OK + (b"X: " + b"x" * 2000 + b"\r\n") * 100,
        OK + (b"no colon, hence not counted\r\n") * 10_000,
        b"HTTP/1.1 103 Wait\r\nX: " + b"x" * 100_000 + b"\r\n\r\n" + OK + b"X: " + b"x" * 100_000,
        b"HTTP/1.1 200 " + b"x" * 200_000,
    ],
)
def test_all_of_a_head_is_bounded(data: bytes) -> None:
    with pytest.raises(Malformed, match="more than 128 KiB of headers") as caught:
        read_head(stream(data))
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"Location:\t /cat.png \t", [("Location", "/cat.png")]),
        (b"Location : /cat.png", [("Location", "/cat.png")]),
        (b"Empty:", [("Empty", "")]),
        (b"Location: /voil\xc3\xa0 ", [("Location", "/voil\xc3\xa0")]),
        (b"no colon here", []),
        (b": no name", []),
        (b"X: a\r\n b\r\n\tc", [("X", "a b c")]),
        (b" folded, but onto nothing", []),
        (b"X: \xc3\xbc", [("X", "Ã¼")]),
        (b"X: a:b", [("X", "a:b")]),
    ],
)
def test_fields_are_read_as_browsers_read_them(line: bytes, fields: list[object]) -> None:
    assert list(head(line, b"Last: one").fields) == [*fields, ("Last", "one")]


# -- how long a body is -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "length", "chunked", "persists"),
    [
        ([b"Content-Length: 5"], 5, False, True),
        ([b"Content-Length: 5", b"content-length: 5"], 5, False, True),
        ([b"Content-Length: 5, 05"], 5, False, True),
        ([b"Content-Length: 0"], 0, False, True),
        ([b"Content-Length:"], None, False, False),
        ([], None, False, False),
        ([b"Transfer-Encoding: Chunked"], None, True, True),
        ([b"Transfer-Encoding: identity", b"Content-Length: 5"], 5, False, True),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], None, True, False),
        ([b"Content-Length: 5", b"Connection: Keep-Alive, CLOSE"], 5, False, False),
        ([b"Content-Length: 5", b"Connection: closed"], 5, False, True),
    ],
)
def test_a_bodys_length(
    lines: list[bytes], length: int | None, chunked: bool, persists: bool
) -> None:
    found = head(*lines)
    assert (found.length, found.chunked, found.persists) == (length, chunked, persists)


@pytest.mark.parametrize(
    "value",
    [b"-1", b"+5", b"5_0", b"0x5", b"5.0", b"5 5", b"many", b"3, 4", b"9" * 19, "٣".encode()],
)
def test_a_length_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(Malformed, match="Content-Length") as caught:
        _ = head(b"Content-Length: " + value).length
    assert not caught.value.retryable


def test_two_lengths_are_refused() -> None:
    with pytest.raises(Malformed, match="Content-Length: 3, 4"):
        _ = head(b"Content-Length: 3", b"Content-Length: 4").length


@pytest.mark.parametrize("value", [b"gzip, chunked", b"gzip", b"chunked, chunked", b"chunked, x"])
def test_an_unknown_transfer_coding_is_refused(value: bytes) -> None:
    with pytest.raises(Malformed, match="Transfer-Encoding") as caught:
        _ = head(b"Transfer-Encoding: " + value).length
    assert not caught.value.retryable


@pytest.mark.parametrize("status", [101, 204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    line = b"HTTP/1.1 %d Whatever\r\n" % status
    assert head(b"Content-Length: 5", status=line).length == 0
    assert head(b"Transfer-Encoding: chunked", status=line).length == 0


def test_http_1_0_keeps_a_connection_only_where_it_says_so() -> None:
    line = b"HTTP/1.0 200 OK\r\n"
    assert not head(b"Content-Length: 5", status=line).persists
    assert head(b"Content-Length: 5", b"Connection: keep-alive", status=line).persists


# -- chunks -------------------------------------------------------------------------------------


def body(data: bytes) -> bytes:
    return io.BufferedReader(Chunks(stream(data))).read()


@pytest.mark.parametrize(
    "data",
    [
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b'5;name=value\r\nhello\r\n6 ; q="a;b"\r\n world\r\n0;last\r\n\r\n',
        b"0005\r\nhello\r\n006\r\n world\r\n000\r\n\r\n",
        b"5\nhello\n6\n world\n0\n\n",
        b"5\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\nAnother: y\r\n\r\n",
        b"B\r\nhello world\r\n0\r\n",
        b"b\r\nhello world\r\n0\r\nTrailer: cut",
    ],
)
def test_chunks_are_put_together(data: bytes) -> None:
    assert body(data) == b"hello world"


@pytest.mark.parametrize(
    "size",
    [b"", b"-5", b"+5", b"0x5", b"5_0", b"many", b"5 5", b"f" * 16, b";x", b"5" + b" " * 5000],
)
def test_a_chunk_without_a_size_is_refused(size: bytes) -> None:
    with pytest.raises(Malformed, match="without a size"):
        body(size + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"5\r\nhello\r\n5", b"5\r\nhelloXX\r\n0"],
)
def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        body(data)
    assert caught.value.retryable


def test_trailers_are_bounded() -> None:
    with pytest.raises(Malformed, match="trailers without end"):
        body(b"0\r\n" + b"Trailer: x\r\n" * 20_000)


def test_what_follows_the_body_is_left_where_it_is() -> None:
    rest = stream(b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK")
    chunks = Chunks(rest)  # which closes the stream with itself
    assert chunks.readall() == b"hello"
    assert rest.read() == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_chunks_may_come_in_pieces_of_any_size(size: int) -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            data = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
            self._pieces = [data[at : at + size] for at in range(0, len(data), size)]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            piece = self._pieces.pop(0) if self._pieces else b""
            buffer[: len(piece)] = piece
            return len(piece)

    chunks = io.BufferedReader(Chunks(io.BufferedReader(Slow())), 100)
    parts = itertools.takewhile(bool, (chunks.read1(4) for _ in itertools.count()))
    assert b"".join(parts) == b"hello world"
