"""Requests that are wrong, each in its own way, with what may be answered to them.

The rows are those of the tests' table of bad input, alone and between two good rows.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.server.payloads import Row, post
from tests.contract import test_bad_input as table
from tests.support.hostile import PNG, Server, dead_port, say_nothing

MOST_BYTES = 2 * 2**20
SETTINGS = {
    "SCORE_MAX_REQUEST_BYTES": str(MOST_BYTES),
    "SCORE_MAX_IMAGE_BYTES": str(table.SETTINGS.max_image_bytes),
    "SCORE_MAX_PIXELS": str(table.SETTINGS.max_pixels),
    "SCORE_MAX_RETRIES": "1",
    "SCORE_RETRY_WAIT": "0.01",
    "SCORE_CONNECT_TIMEOUT": "0.5",
    "SCORE_READ_TIMEOUT": "1.5",
    "SCORE_ROW_DEADLINE": "3",
    "SCORE_BODY_TIMEOUT": "5",
    "SCORE_HEADER_TIMEOUT": "5",
}
"""Under which the cases are bad, and quickly so."""

GOOD = [{"image": table.in_base64(PNG)}, {"text": "a photo of a cat"}]
"""The rows before and after a bad one."""


@dataclass(frozen=True)
class Case:
    """statuses: what may be answered. codes: of the row between good ones; none for other cases."""

    name: str
    request: bytes
    statuses: frozenset[int]
    codes: frozenset[str] = frozenset()


_LATE = frozenset({"fetch_timeout", "fetch_failed"})
"""The table's servers are public ones there. Here they are inside, and of one that gives no answer
clients are told only that it cannot be reached."""


def cases(servers: Mapping[str, str]) -> Iterator[Case]:
    """servers: what the words in braces of the table's URLs stand for."""
    for name, code, _, row in table.rows():
        text = "" if row.text is None else row.text
        cells = {"image": _spelled(row.image, servers), "text": text}
        if (alone := _body([cells], "raise")) is None:
            continue
        yield Case(name, post(alone), frozenset({400, 422}))
        between = _body([GOOD[0], cells, GOOD[1]], "report")
        assert between
        codes = _LATE if code == "fetch_timeout" else frozenset({code})
        yield Case(f"{name}, between good rows", post(between), frozenset({200}), codes)
    for name, body in _BODIES.items():
        yield Case(name, post(body), frozenset({400, 413, 415, 422}))
    for name, request in _MESSAGES.items():
        yield Case(name, request, frozenset({400, 404, 405, 408, 413, 414, 415, 431, 501}))


def _spelled(cell: object, servers: Mapping[str, str]) -> object:
    """As JSON has it; None becomes a blank."""
    if isinstance(cell, bytes):
        return table.in_base64(cell)
    if isinstance(cell, str) and cell.startswith("{"):
        word, brace, rest = cell.partition("}")
        return servers[word + brace] + rest if word + brace in servers else _ABSENT
    if isinstance(cell, str) and ".example" in cell:
        return _ABSENT  # a look-up of a name would leave this machine
    return "" if cell is None else cell


_ABSENT = object()  # no JSON: leaves the case out


def _body(rows: list[Any], on_error: str) -> bytes | None:
    """None for a cell that JSON cannot have."""
    params = {"on_error": on_error, "truncate": "error"}
    try:
        return json.dumps({"input_data": rows, "params": params}).encode()
    except (TypeError, ValueError):
        return None


def _table(columns: object, data: object, **more: object) -> bytes:
    return json.dumps({"input_data": {"columns": columns, "data": data}, **more}).encode()


_TEXT: Row = {"input_data": [{"text": "a cat"}]}
_BODIES = {
    "nothing": b"",
    "half of JSON": b'{"input_data": {"columns": ["text"], "data": [["a',
    "no JSON": b"text=a+cat",
    "not UTF-8": b'{"input_data": [{"text": "\xff\xfe"}]}',
    "a list": b"[1, 2, 3]",
    "null": b"null",
    "a number of a million digits": b"1" * 1_000_000,
    "nested a hundred thousand times": b"[" * 100_000,
    "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "no input_data": b'{"data": []}',
    "unknown columns": _table(["picture"], [["a cat"]]),
    "no columns": _table([], [[]]),
    "columns that come twice": _table(["text", "text"], [["a", "b"]]),
    "columns that are numbers": _table([1, 2], [["a", "b"]]),
    "rows that are too long": _table(["text"], [["a", "b"]]),
    "rows that are too short": _table(["image", "text"], [["a"]]),
    "rows that are none": _table(["text"], ["a cat"]),
    "NaN": _table(["text"], [[float("nan")]]),
    "infinity": _table(["image"], [[float("inf")]]),
    "unknown params": json.dumps(_TEXT | {"params": {"colour": "red"}}).encode(),
    "params of a wrong type": json.dumps(_TEXT | {"params": {"normalize": "maybe"}}).encode(),
    "params that are none": json.dumps(_TEXT | {"params": [1]}).encode(),
    "an unknown key": json.dumps(_TEXT | {"inputs_data": 1}).encode(),
    "too many rows": _table(["text"], [["a"]] * 10_001),
    "too many bytes": _table(["text"], [["a" * (MOST_BYTES + 1)]]),
    "zero bytes": bytes(1000),
    "gzip that is not announced": gzip.compress(json.dumps(_TEXT).encode()),
}

_HEAD = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
_MESSAGES = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
    "a method that is none": b"SCORE /score HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "GET": b"GET /score HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a path that is none": b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"POST /score HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "a length in words": _HEAD + b"Content-Length: many\r\n\r\n{}",
    "a negative length": _HEAD + b"Content-Length: -1\r\n\r\n{}",
    "two lengths": _HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    # What came next on this connection would be a part of its body.
    "a length of a terabyte": _HEAD
    + b"Connection: close\r\nContent-Length: 1099511627776\r\n\r\n{}",
    "half a body": _HEAD + b"Content-Length: 100\r\n\r\n{",
    "half the headers": _HEAD,
    "chunks that are none": _HEAD + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n{}",
    "a header of a megabyte": _HEAD + b"X: " + b"y" * 2**20 + b"\r\n\r\n",
    "parquet that is none": post(b"PAR1" + bytes(100), kind="application/vnd.apache.parquet"),
    "a body of another kind": post(b"<a/>", kind="text/xml"),
}


@contextmanager
def image_servers() -> Iterator[dict[str, str]]:
    """What the words in braces stand for, of which some are left out: a server with all bad
    answers, one that never answers, and a port that nobody listens on.
    """
    with Server() as plain, Server(says=say_nothing) as mute:
        yield {
            "{plain}": plain.url(""),
            "{http-as-tls}": plain.url("", scheme="https"),
            "{mute}": mute.url(""),
            "{dead}": f"http://127.0.0.1:{dead_port()}",
        }
