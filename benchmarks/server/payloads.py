"""Requests as bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from benchmarks import fixtures

KINDS = ("texts", "base64", "urls")
Row = dict[str, Any]


def post(body: bytes, path: str = "/score", kind: str = "application/json") -> bytes:
    """A request that keeps its connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: {fixtures.HERE}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def score(rows: Sequence[Row], **params: Any) -> bytes:
    """Rows of one shape as a request in Azure's shape."""
    data = [list(row.values()) for row in rows]
    body: Row = {"input_data": {"columns": list(rows[0]), "data": data}}
    return post(json.dumps(body | ({"params": params} if params else {})).encode())


def rows(kind: str, count: int, urls: Sequence[str]) -> list[Row]:
    """Rows of one kind. No texts and no images in base64 are alike: one stream would compute those
    once, requests each time. Images are of about 640×480."""
    if kind == "texts":
        return [{"text": text} for text in fixtures.texts(count)]
    if kind == "urls":
        return [{"image": url} for url in islice(cycle(urls), count)]
    return [{"image": fixtures.in_base64(image)} for image in islice(fixtures.distinct(), count)]


def singles(rows: Sequence[Row]) -> list[bytes]:
    """A request for each row."""
    return [score([row]) for row in rows]
