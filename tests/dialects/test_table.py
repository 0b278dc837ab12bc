"""What holds for every dialect: a new one is covered by being listed."""

from __future__ import annotations

import gzip
import json
from typing import Any

import jsonschema
import pytest
import requests

from score.core import endpoint
from score.core.embedder import Embedder
from score.core.models import Models
from score.dialects import openapi
from score.dialects.base import Message, Page, Refusal, Route
from score.dialects.table import PAGES
from score.errors import RequestError, UnknownModel
from tests.dialects.asking import IDS, NAME, ROUTES, check_refusal, path_of, post, refused
from tests.dialects.conftest import MOST_BYTES, MOST_ROWS

each = pytest.mark.parametrize("route", ROUTES, ids=IDS)

DEEP = b"[" * 100_000 + b"]" * 100_000
HOSTILE = {
    "no bytes": b"",
    "no JSON": b"{",
    "null bytes": b"\0" * 100,
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "gzip": gzip.compress(b"{}", mtime=0),
    "nested deeply": DEEP,
    "nested in an object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "huge integer": b"9" * 10_000,
    "null": b"null",
    "list": b"[]",
    "number": b"1",
    "string": b'"text"',
    "no keys": b"{}",
    "unknown key": b'{"nonsense": 1}',
}


@each
@pytest.mark.parametrize("name", HOSTILE)
def test_bodies_nobody_should_send(base: str, route: Route, name: str) -> None:
    if (route.path, name) == ("/vectorize", "no keys"):
        assert post(base, route.path, b"{}").json() == {"textVectors": [], "imageVectors": []}
        return
    response = post(base, path_of(route), HOSTILE[name])
    assert response.status_code == 400, response.text[:300]
    check_refusal(path_of(route), response)


VALUES: list[Any] = [
    *(None, True, 0, -1, 10**30, float("nan"), float("inf"), 1e308, "", " ", "\ud800", "\0"),
    *(
        [],
        {},
        [None],
        [[]],
        [{}],
        [1, 2],
        [1.5],
        [True],
        ["\ud800"],
        [[1, 2], [3]],
        {"a": {"b": []}},
    ),
    *(
        {"text": 1},
        {"image": None},
        {"text": "a", "image": "b"},
        {"Text": "a"},
        "data:,",
        "http://",
    ),
    *(["a"] * (MOST_ROWS + 1), "x" * 10_000, json.loads("[" * 500 + "]" * 500)),
]


def mutants(example: Any) -> list[Any]:
    """The example with each of its values replaced by each value that may be unexpected."""
    found: list[Any] = []

    def walk(value: Any, rebuild: Any) -> None:
        found.extend(rebuild(other) for other in VALUES)
        if isinstance(value, dict):
            for key in value:
                walk(value[key], lambda new, key=key: rebuild({**value, key: new}))
        elif isinstance(value, list):
            for index in range(len(value)):
                walk(
                    value[index],
                    lambda new, i=index: rebuild([*value[:i], new, *value[i + 1 :]]),
                )

    walk(example, lambda new: new)
    return found


@pytest.mark.slow
@each
def test_unexpected_values_are_answered_or_refused(base: str, route: Route) -> None:
    """Every seventh mutant: of each place in the body other values."""
    assert len(VALUES) % 7
    with requests.Session() as session:
        for body in mutants(route.example)[::7]:
            data = json.dumps(body).encode()
            response = session.post(f"{base}{path_of(route)}", data, timeout=60)
            assert response.status_code in (200, 400, 404, 413, 422), (body, response.text[:300])
            json.loads(response.content, parse_constant=pytest.fail)
            if response.status_code != 200:
                check_refusal(path_of(route), response)


@each
def test_parsers_raise_nothing_else(route: Route) -> None:
    for body in mutants(route.example):
        try:
            call = route.parse(Message(json.dumps(body).encode(), "application/json", NAME))
        except RequestError:
            continue
        assert isinstance(call.rows, list)


@each
def test_examples_are_answered_as_the_documentation_says(base: str, route: Route) -> None:
    response = post(base, path_of(route), route.example)
    assert response.status_code == 200, response.text[:500]
    jsonschema.validate(response.json(), openapi.schema_of(route.answer))
    assert set(response.json()) >= set(route.answer) if isinstance(route.answer, dict) else True


@each
def test_a_repeated_key_is_refused(base: str, route: Route) -> None:
    key, value = next(iter(route.example.items()))
    pair = f"{json.dumps(key)}: {json.dumps(value)}"
    response = post(base, path_of(route), f"{{{pair}, {pair}}}".encode())
    assert response.status_code == 400
    assert "more than once" in response.text
    check_refusal(path_of(route), response)


@each
def test_an_unknown_key_is_refused(base: str, route: Route) -> None:
    assert "nonsense" in str(refused(base, path_of(route), {**route.example, "nonsense": 1}))


@each
def test_a_large_body_is_refused(base: str, route: Route) -> None:
    refused(base, path_of(route), b" " * (MOST_BYTES + 1), 413)


@each
def test_other_methods_are_refused_in_the_same_shape(base: str, route: Route) -> None:
    response = requests.delete(base + path_of(route), timeout=10)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    check_refusal(path_of(route), response)


@pytest.mark.parametrize("path", [page.path for page in PAGES])
def test_pages_are_read(base: str, path: str) -> None:
    response = requests.get(base + path.replace("{model:path}", NAME), timeout=10)
    assert response.status_code in (200, 204)


def test_the_openapi_document_is_valid_and_complete(base: str) -> None:
    document = requests.get(f"{base}/openapi.json", timeout=10).json()
    assert document["openapi"] == "3.1.0"
    paths = [*(route.path for route in ROUTES), *(page.path for page in PAGES)]
    assert {path.replace(":path", "") for path in paths} == set(document["paths"])
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for operation in operations:
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                jsonschema.Draft202012Validator.check_schema(content["schema"])
                jsonschema.validate(content["example"], content["schema"])


def test_the_page_of_examples_loads_nothing_else(base: str) -> None:
    response = requests.get(f"{base}/docs", timeout=10)
    assert response.headers["content-type"].startswith("text/html")
    for route in ROUTES:
        assert f"POST {route.path}" in response.text
    for loading in ("<script", "<link", "<img", "src=", "@import", "url("):
        assert loading not in response.text


def test_a_schema_of_an_example_tells_shapes_apart() -> None:
    schema = openapi.schema_of({"data": [{"x": [0.5]}, {"y": "z"}], "n": 1, "none": None})
    jsonschema.validate({"data": [{"y": ""}], "n": 2, "none": 3}, schema)
    for wrong in ({"data": [], "n": 1}, {"data": [{"x": ["a"]}], "n": 1, "none": None}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (
            "/score",
            [
                {"image_features": [0.5]},
                {"error": {"code": "c", "message": "m", "retryable": True}},
            ],
        ),
        ("/score", {"vector": [0.5]}),
        (
            "/v1/embeddings",
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": "aa"}],
                "model": "m",
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
            },
        ),
    ],
)
def test_the_document_knows_answers_of_other_shapes(path: str, answer: Any) -> None:
    operation = openapi.document(ROUTES, PAGES)["paths"][path]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{"error": 1}], schema)


@pytest.fixture(scope="module")
def models(embedder: Embedder) -> Models:
    return Models({NAME: embedder})


@each
def test_examples_without_a_server(models: Models, route: Route) -> None:
    message = Message(json.dumps(route.example).encode(), "application/json", NAME)
    answer = endpoint.answer(models, route, message)
    assert answer.status == 200, answer.body
    jsonschema.validate(json.loads(answer.body), openapi.schema_of(route.answer))
    refused = endpoint.answer(models, route, Message(b"{", "application/json", NAME))
    assert (refused.status, b"not JSON" in refused.body) == (400, True)


@pytest.mark.parametrize("page", PAGES, ids=[page.path for page in PAGES])
def test_pages_without_a_server(models: Models, page: Page) -> None:
    assert endpoint.read(models, page, Message(model=NAME)).status in (200, 204)
    if "{model" in page.path:
        assert endpoint.read(models, page, Message(model="other")).status == 404


@each
def test_a_bug_is_a_500_in_the_dialect_s_shape(
    models: Models, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Embedder, "answer", broken)
    message = Message(json.dumps(route.example).encode(), "application/json", NAME)
    answer = endpoint.answer(models, route, message)
    assert (answer.status, b"secret" in answer.body) == (500, False)
    wanted = route.refuse(Refusal(500, "internal_error", "m")).content
    jsonschema.validate(json.loads(answer.body), openapi.schema_of(wanted))


def test_a_name_chooses_among_several_models(embedder: Embedder) -> None:
    several = Models({"first": embedder, "second": embedder})
    assert several.find(None)[0] == "first"
    assert several.find("second")[0] == "second"
    assert [facts.name for facts in several.facts()] == ["first", "second"]
    with pytest.raises(UnknownModel, match=r"'third'.*'first', 'second'"):
        several.find("third")
    assert embedder.name == NAME
