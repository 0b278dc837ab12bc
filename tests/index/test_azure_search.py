"""Pushes to a stand-in for Azure AI Search: schema, documents, retries, refusals."""

from __future__ import annotations

import datetime
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from score.__main__ import main
from score.errors import RequestError
from score.index.azure_search import Address, fields_of, push
from tests.support import exact_search
from tests.support.exact_search import clustered, written

ADMIN = "0123456789abcdef"
Answer = tuple[int, Any]


class Service:
    """As the REST API's reference describes it. `script`: what the next calls are answered with,
    in place of what they ask for; a function is called with the body."""

    def __init__(self) -> None:
        self.index: dict[str, Any] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.script: list[Answer | Callable[[Any], Answer]] = []
        self.calls: list[tuple[str, str, int]] = []  # method, path, documents
        self.retry_after = "7"
        self.url = ""

    def answer(self, method: str, path: str, key: str | None, body: Any) -> Answer:
        self.calls.append((method, path, len(body.get("value", ()))))
        if key != ADMIN:
            return 403, {"error": {"message": "Forbidden"}}
        if self.script:
            scripted = self.script.pop(0)
            return scripted(body) if callable(scripted) else scripted
        if method == "PUT":
            return self.create(path, body)
        return self.add(body["value"])

    def create(self, path: str, body: Any) -> Answer:
        assert path == f"/indexes/{body['name']}?api-version=2024-07-01"
        for field in body["fields"]:
            assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,127}", field["name"])
            assert re.fullmatch(
                r"Edm\.(String|Boolean|Int64|Double|DateTimeOffset)|Collection\(Edm\.(Single|String)\)",
                field["type"],
            )
        self.index = body
        return 201, body

    def add(self, documents: list[dict[str, Any]]) -> Answer:
        assert len(documents) <= 1000
        known = {field["name"] for field in self.index["fields"]}
        for document in documents:
            assert document.pop("@search.action") == "mergeOrUpload"
            assert set(document) == known
            assert re.fullmatch(r"[A-Za-z0-9_\-=]+", document["key"])
            self.documents[document["key"]] = document
        return 200, {"value": [result(document["key"]) for document in documents]}


def result(key: str, status: int = 200) -> dict[str, Any]:
    is_good = status < 300
    message = None if is_good else "it is wrong\n"
    return {"key": key, "status": is_good, "errorMessage": message, "statusCode": status}


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            key = self.headers.get("api-key")
            status, said = state.answer(self.command, self.path, key, body)
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            if status in (429, 503):
                self.send_header("retry-after", state.retry_after)
            if status == 302:
                self.send_header("location", "http://127.0.0.1:1/indexes/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/indexes/images"
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = exact_search.table(clustered(1203, 4, 9), {"id": [f"a{n}" for n in range(1203)]})
    return written(tmp_path / "in/a.parquet", rows)


def test_schema_and_documents(service: Service, tmp_path: Path) -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)
    columns = {
        "id": ["x", None],
        "a.b c": pa.array([1, 2], pa.int32()),
        "ratio": [0.5, float("nan")],
        "good": [True, None],
        "at": pa.array([moment, None], pa.timestamp("ns", "UTC")),
        "local": pa.array([moment, None]),
        "day": [moment.date(), None],
        "tags": [["a", None, "b"], None],
        "box": [[1, 2], None],
        "raw": [b"\0", None],
        "image": ["data:,x", None],
        "2nd": pa.array([2**64 - 1, 0], pa.uint64()),
    }
    rows = exact_search.table(np.array([[3, 4], [0, 2]], np.float32), columns)
    assert push(written(tmp_path / "in.parquet", rows), service.url, ADMIN) == 2
    fields = {field["name"]: field for field in service.index["fields"]}
    assert [name for name, field in fields.items() if field.get("key")] == ["key"]
    assert fields["image_features"]["dimensions"] == 2
    profile = fields["image_features"]["vectorSearchProfile"]
    search = service.index["vectorSearch"]
    assert [each["name"] for each in search["profiles"]] == [profile]
    assert search["algorithms"][0]["hnswParameters"]["metric"] == "cosine"
    assert {name for name, field in fields.items() if field.get("filterable")} == {
        *("key", "id", "a_b_c", "ratio", "good", "at", "local", "day", "tags"),
    }
    first, second = service.documents.values()
    assert first["image_features"] == pytest.approx([0.6, 0.8])
    assert (first["a_b_c"], first["ratio"], first["good"]) == (1, 0.5, True)
    assert first["at"] == "2026-01-02T03:04:05.000006+00:00"
    assert (first["local"], first["day"]) == ("2026-01-02T03:04:05.000006Z", "2026-01-02T00:00:00Z")
    assert (first["tags"], first["box"], first["raw"]) == (["a", "b"], "[1, 2]", '"AA=="')
    assert first["column_2nd"] == str(2**64 - 1)
    assert (second["id"], second["ratio"], second["tags"]) == (None, None, [])


def test_a_push_that_is_repeated_changes_nothing(service: Service, table: Path) -> None:
    assert push(table.parent, service.url, ADMIN) == 1203
    before = dict(service.documents)
    table.rename(table.with_name("b.parquet"))
    assert push(table.parent, service.url + "/", ADMIN) == 1203
    assert service.documents == before
    assert len(before) == 1203
    assert [count for _, _, count in service.calls] == [0, 500, 500, 203] * 2


def test_a_content_is_pushed_once(service: Service, tmp_path: Path) -> None:
    """And rows are numbered as in an index."""
    for name, first in (("a", 3.0), ("b", 3.0), ("c", 5.0)):
        lists = pa.array([[first, 4.0], None, [0.0, 1.0]], pa.list_(pa.float32()))
        written(tmp_path / f"in/{name}.parquet", pa.table({"image_features": lists}))
    (tmp_path / "in/d.parquet").symlink_to(tmp_path / "in/c.parquet")
    assert push(tmp_path / "in", service.url, ADMIN) == 4
    assert [document["row"] for document in service.documents.values()] == [0, 2, 3, 5]


def test_what_the_service_is_too_busy_for_is_sent_again(service: Service, table: Path) -> None:
    def some(body: Any) -> Answer:
        """Takes all but two."""
        busy = [body["value"].pop(at) for at in (3, 1)]
        _, said = service.add(body["value"])
        return 207, {"value": [*said["value"], *(result(each["key"], 503) for each in busy)]}

    service.script = [(503, b"<html>"), (429, b""), (201, {}), (503, {}), some]
    waits: list[float] = []
    service.index = {"fields": [{"name": name} for name in ("key", "id", "image_features")]}
    assert push(table, service.url, ADMIN, pause=waits.append) == 1203
    assert len(service.documents) == 1203
    assert waits == [7, 7, 7, 1]


def test_a_batch_that_is_too_large_is_divided(service: Service, table: Path) -> None:
    service.script = [(413, b""), (413, b"")]
    with pytest.raises(RequestError, match="answered 413"):
        push(table, service.url, ADMIN)  # the index itself
    service.script = [lambda body: service.create("/indexes/images?api-version=2024-07-01", body)]
    service.script += [(413, b""), (413, b"")]
    assert push(table, service.url, ADMIN) == 1203
    assert len(service.documents) == 1203


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([(503, b"")] * 99, r"answered 503, 7 times"),
        ([(400, {"error": {"message": "no such\ntype"}})], r"answered 400: 'no such\\ntype'"),
        ([(400, b"\xff" * 99)], "answered 400$"),
        ([(400, b"[" * 100_000)], "answered 400$"),
        ([(302, b"")], "answered 302$"),
        ([(201, {}), (200, b"<html>")], "answer is not that of Azure AI Search"),
        (
            [(201, {}), (207, {"value": [result("k", 400)]})],
            r"refuses the document 'k': 'it is wrong\\n'",
        ),
        (
            [
                (201, {}),
                *[lambda body: (207, {"value": [result(body["value"][0]["key"], 503)]})] * 9,
            ],
            "did not take 1 documents: it is too busy; push again",
        ),
    ],
)
def test_what_the_service_refuses_is_one_sentence(
    script: list[Any], message: str, service: Service, table: Path
) -> None:
    service.script = script
    with pytest.raises(RequestError, match=message) as caught:
        push(table, service.url, ADMIN, pause=lambda _: None)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_refused(service: Service, table: Path) -> None:
    with pytest.raises(
        RequestError, match=r"refuses the key in AZURE_SEARCH_KEY \(403\)"
    ) as caught:
        push(table, service.url, "secret")
    assert "secret" not in str(caught.value)
    for key in ("", "a\nb", "ü"):
        with pytest.raises(RequestError, match="AZURE_SEARCH_KEY must be set"):
            push(table, service.url, key)


def test_nothing_is_sent_of_what_cannot_be_indexed(service: Service, tmp_path: Path) -> None:
    rows = exact_search.table(np.array([[1, 2], [0, 0]], np.float32), {"id": ["a", "b"]})
    with pytest.raises(RequestError, match="row 1: the vector is all zeros"):
        push(written(tmp_path / "in.parquet", rows), service.url, ADMIN)
    assert not service.calls


def test_a_service_that_is_not_there(table: Path) -> None:
    waits: list[float] = []
    with pytest.raises(RequestError, match="does not answer: NewConnectionError, 7 times"):
        push(table, "http://127.0.0.1:1/indexes/images", ADMIN, pause=waits.append)
    assert waits == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    "url",
    [
        *("", "images", "http://x.search.windows.net/indexes/images", "ftp://x/indexes/images"),
        *("https://x.search.windows.net", "https://x.search.windows.net/indexes/"),
        *("https://u:p@x.search.windows.net/indexes/a1", "https://x/indexes/images?a=b"),
        *("https://x/indexes/Images", "https://x/indexes/a", "https://x/indexes/a--b"),
        *("https://x/indexes/-ab", "https://x:99999/indexes/ab", "https://[x/indexes/ab"),
        *("https://x/indexes/a%2fb", "https://x/other/images", "https:///indexes/images"),
    ],
)
def test_urls_that_are_no_index(url: str) -> None:
    with pytest.raises(RequestError, match=r"is not of the form|is no name of an index"):
        Address.parse(url)


@pytest.mark.parametrize("names", [["key"], ["image_features"], ["a.b", "a b"]])
def test_columns_that_would_be_one_field_are_refused(names: list[str]) -> None:
    with pytest.raises(RequestError, match="rename it"):
        fields_of(pa.schema([(name, pa.int64()) for name in names]), "image_features")


def test_the_command(
    service: Service,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["index", str(table), "--push", service.url]
    monkeypatch.delenv("AZURE_SEARCH_KEY", raising=False)
    assert main(arguments) == 2
    assert "AZURE_SEARCH_KEY must be set" in capsys.readouterr().err
    monkeypatch.setenv("AZURE_SEARCH_KEY", ADMIN)
    assert main([*arguments, "--append"]) == 2
    assert "--push goes with none of" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "1,203 vectors" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--output", "x"])
