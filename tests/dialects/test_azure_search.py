"""Azure AI Search: what its documentation says that it sends, and the samples for it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.dialects.asking import check_alike, post, refused
from tests.support.images import SAMPLES, in_base64, served
from tests.support.surfaces import ROOT, Azure

FOLDER = ROOT / "samples" / "azure_ai_search"
PATHS = ("/score", "/azure-ai-search")


def record(name: str, **data: Any) -> dict[str, Any]:
    return {"recordId": name, "data": data}


def values(base: str, *records: Any, path: str = PATHS[0]) -> list[Any]:
    response = post(base, path, {"values": records})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()["values"]


def unit(base: str, **row: str) -> Any:
    body = {"input_data": [row], "params": {"normalize": True}}
    ((vector,),) = [record.values() for record in post(base, "/score", body).json()]
    return vector


@pytest.mark.parametrize("path", PATHS)
def test_the_vectorizer_s_three_queries(base: str, apple: bytes, path: str) -> None:
    wanted = unit(base, image=in_base64(apple))
    with served(SAMPLES / "images") as folder:
        for data in (
            {"imageUrl": f"{folder}/apple.png"},
            {"imageBinary": {"data": in_base64(apple)}},
        ):
            (value,) = values(base, record("0", **data), path=path)
            assert set(value) == {"recordId", "data", "errors", "warnings"}
            assert (value["recordId"], value["errors"], value["warnings"]) == ("0", None, None)
            check_alike(value["data"]["vector"], wanted)
    (value,) = values(base, record("0", text="a red apple"), path=path)
    text = unit(base, text="a red apple")
    check_alike(value["data"]["vector"], text)


def test_a_skill_s_batch_with_errors_and_warnings(base: str, apple: bytes) -> None:
    page = {"$type": "file", "data": in_base64(apple), "width": 72, "contentType": "image/png"}
    answered = values(
        base,
        record("b", text="a boat", language="en"),
        record("a", image=page),
        record("bad", imageUrl="%"),
        record("long", text="a " * 100),
        record("none", text=None),
        record("other", Text="a"),
        record("both", text="a", imageUrl="b"),
        record("number", text=5),
        record("no image", image={"width": 3}),
        record("false image", image={"data": False, "url": "%"}),
    )
    by_name = {value["recordId"]: value for value in answered}
    assert list(by_name) == [
        *("b", "a", "bad", "long", "none", "other", "both", "number", "no image", "false image")
    ]
    for name in ("b", "a", "long"):
        assert len(by_name[name]["data"]["vector"]) == 512
        assert by_name[name]["errors"] is None
    for name, says in {
        "bad": "bad_base64: image:",
        "none": "needs one of 'text'",
        "other": "its keys are 'Text'",
        "both": "two records",
        "number": "must be a string",
        "no image": "needs 'data' or 'url'",
        "false image": "bad_type: image:",
    }.items():
        assert by_name[name]["data"] == {}
        (error,) = by_name[name]["errors"]
        assert says in error["message"]
    assert "'language' is not used" in by_name["b"]["warnings"][0]["message"]
    assert "context of 77 tokens" in by_name["long"]["warnings"][0]["message"]


@pytest.mark.process
def test_a_silent_host_fails_one_record_within_the_request_s_deadline() -> None:
    """The service waits 30 s by default; the request's own deadline must be shorter."""
    from socket import create_server

    from tests.support.surfaces import OwnServer

    own = OwnServer(SCORE_REQUEST_DEADLINE="2")
    try:
        own.wait()
        with create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"
            body = {"values": [record("0", imageUrl=url), record("1", text="a boat")]}
            response = own.post(json.dumps(body).encode())
        failed, fine = response.json()["values"]
        assert failed["errors"][0]["message"].startswith("fetch_failed: ")
        assert fine["errors"] is None
    finally:
        own.stop()


def test_the_aml_skill_sends_one_record_s_inputs(base: str, apple: bytes) -> None:
    answer = post(base, "/score", {"text": "a boat"})
    assert set(answer.json()) == {"vector"}
    check_alike(answer.json()["vector"], unit(base, text="a boat"))
    image = post(base, "/score", {"image": {"$type": "file", "data": in_base64(apple)}})
    assert image.status_code == 200
    assert (
        "'language'" in refused(base, "/score", {"text": "a", "language": "en"})["error"]["message"]
    )
    for body in ({"text": ""}, {"text": "a", "imageUrl": "b"}, {"image": "%"}):
        refused(base, "/score", body, 422)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"values": {}}, "must be a list"),
        ({"values": [1]}, "must be an object"),
        ({"values": [{"data": {}}]}, "recordId must be a string"),
        ({"values": [{"recordId": 0, "data": {}}]}, "recordId must be a string"),
        ({"values": [{"recordId": "0"}]}, "data must be an object"),
        ({"values": [record("0", text="a")] * 2}, "appears twice"),
        ({"values": [], "more": 1}, "unknown key 'more'"),
        ({"values": [], "input_data": []}, "unknown key 'values'"),
    ],
)
def test_bodies_that_are_refused(base: str, content: Any, says: str) -> None:
    assert says in refused(base, "/score", content)["error"]["message"]


def test_no_records_and_too_many(base: str) -> None:
    assert values(base) == []
    many = {"values": [record(str(number), text="a") for number in range(51)]}
    assert refused(base, "/score", many, 413)["error"]["code"] == "too_large"


@pytest.mark.process
@pytest.mark.slow
def test_an_azure_ml_endpoint_serves_an_index_and_takes_uploads(apple: bytes) -> None:
    server = Azure()
    try:
        server.wait()
        body = json.dumps({"values": [record("0", text="a boat")]}).encode()
        (value,) = server.post(body).json()["values"]
        assert len(value["data"]["vector"]) == 512
        files = {"image": ("a.png", apple, "image/png")}
        (uploaded,) = requests.post(server.url, files=files, timeout=60).json()
        (plain,) = server.post(apple, "image/png").json()
        check_alike(uploaded, plain)
        assert set(plain) == {"image_features"}
    finally:
        server.stop()


class Search(BaseHTTPRequestHandler):
    """A stand-in for a search service: keeps what is created, vectorizes what is asked."""

    created: dict[str, Any]
    base: str

    def do_PUT(self) -> None:
        self.created[self.path.partition("?")[0]] = self._body()
        self._answer(201, {})

    def do_POST(self) -> None:
        (query,) = self._body()["vectorQueries"]
        index = self.created["/indexes/clip-images"]
        (vectorizer,) = index["vectorSearch"]["vectorizers"]
        parameters = vectorizer["customWebApiParameters"]
        response = requests.request(
            parameters["httpMethod"],
            parameters["uri"],
            json={"values": [record("0", **{query["kind"]: query["text"]})]},
            headers=parameters["httpHeaders"],
            timeout=int(parameters["timeout"].strip("PTS")),
        )
        (value,) = response.json()["values"]
        field = next(one for one in index["fields"] if one["name"] == query["fields"])
        assert len(value["data"]["vector"]) == field["dimensions"]
        self._answer(200, {"value": [{"path": "apple.png"}]})

    def _body(self) -> Any:
        assert self.headers["api-key"] == "admin"
        assert "api-version=2024-07-01" in self.path
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, status: int, content: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def search() -> Iterator[str]:
    Search.created = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Search)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.process
def test_the_samples_create_an_index_that_answers(base: str, apple: bytes, search: str) -> None:
    environ = {
        **os.environ,
        "SEARCH": search,
        "ADMIN_KEY": "admin",
        "STORAGE": 'a "quoted"=1',
        "URI": f"{base}/score",
        "KEY": "k",
    }
    script = FOLDER / "create.sh"
    came = subprocess.run([script], env=environ, capture_output=True, text=True, timeout=120)
    assert came.returncode == 0, came.stderr + came.stdout
    assert came.stdout.splitlines()[-1] == '{"value": [{"path": "apple.png"}]}'
    assert Search.created["/datasources/clip-images"]["credentials"] == {
        "connectionString": 'a "quoted"=1'
    }
    (skill,) = Search.created["/skillsets/clip-images"]["skills"]
    (wanted,) = (one["name"] for one in skill["outputs"])
    (given,) = (one["name"] for one in skill["inputs"])
    page = {"$type": "file", "data": in_base64(apple)}

    def call(batch: int) -> Any:
        records = [record(str(batch + number), **{given: page}) for number in range(4)]
        return values(skill["uri"].removesuffix("/score"), *records)

    with ThreadPoolExecutor(skill["degreeOfParallelism"]) as pool:
        batches = [value for batch in pool.map(call, range(0, 32, 4)) for value in batch]
    assert {value["recordId"] for value in batches} == {str(number) for number in range(32)}
    assert all(len(value["data"][wanted]) == 512 for value in batches)


def test_the_samples_fit_together() -> None:
    files = {file.stem: json.loads(file.read_text()) for file in Path(FOLDER).glob("*.json")}
    index, indexer, skillset = files["index"], files["indexer"], files["skillset"]
    (selector,) = skillset["indexProjections"]["selectors"]
    mapped = {mapping["name"] for mapping in selector["mappings"]}
    keys = {"id", selector["parentKeyFieldName"]}
    assert mapped | keys == {field["name"] for field in index["fields"]}
    assert selector["targetIndexName"] == index["name"]
    assert {skill["context"] for skill in skillset["skills"]} == {selector["sourceContext"]}
    assert indexer["targetIndexName"] == index["name"]
    assert indexer["skillsetName"] == skillset["name"]
    assert indexer["dataSourceName"] == files["datasource"]["name"]
    for skill in (*skillset["skills"], files["aml-skill"]):
        assert [output["name"] for output in skill["outputs"]] == ["vector"]
