"""What holds for every dialect: a new one is covered by being listed."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import pytest
import requests

from score.core import endpoint
from score.core.embedder import Embedder
from score.core.models import Models
from score.dialects import openapi, table
from score.dialects.base import Message, Page, Refusal, Route, ServerPage
from score.dialects.schemas import Bounds
from score.dialects.table import OF_THE_SERVER, PAGES, PATHS
from score.errors import RequestError, UnknownModel
from score.serve import web_page
from tests.dialects.asking import IDS, NAME, ROUTES, check_refusal, path_of, post, refused
from tests.dialects.conftest import MOST_BYTES, MOST_ROWS
from tests.support.in_process import Running

each = pytest.mark.parametrize("route", ROUTES, ids=IDS)
BOUNDS = Bounds(MOST_ROWS, 2_000)

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


def mutants(example: Any, values: Sequence[Any] = VALUES) -> list[Any]:
    """The example with each of its values replaced by each value that may be unexpected."""
    found: list[Any] = []

    def walk(value: Any, rebuild: Any) -> None:
        found.extend(rebuild(other) for other in values)
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
            elif '"errors":[' not in response.text:
                jsonschema.validate(body, route.schema(BOUNDS))


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
    assert {path.replace(":path", "") for path in PATHS} == set(document["paths"])
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for operation in operations:
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                if content:  # a page has no schema
                    jsonschema.Draft202012Validator.check_schema(content["schema"])
                    jsonschema.validate(content["example"], content["schema"])


def test_the_page_of_examples_loads_nothing_else(base: str) -> None:
    response = requests.get(f"{base}/docs", timeout=10)
    assert response.headers["content-type"].startswith("text/html")
    for route in ROUTES:
        assert f"POST {route.path}" in response.text
    for loading in ("<script", "<link", "<img", "src=", "@import", "url("):
        assert loading not in response.text


@pytest.mark.parametrize("page", OF_THE_SERVER, ids=[page.path for page in OF_THE_SERVER])
def test_the_server_s_own_pages_are_as_the_list_says(base: str, page: ServerPage) -> None:
    response = requests.get(base + page.path, timeout=60)
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == page.answers[200]
    assert page.path in requests.get(f"{base}/docs", timeout=10).text


def test_all_that_a_server_answers_is_in_the_list(server_of_dialects: Running) -> None:
    pages = server_of_dialects.server._service._scoring._app._others  # type: ignore[union-attr]
    routes = {route.path for route in pages.routes}
    health = {*server_of_dialects.server._service._health}
    assert (routes - {*web_page.FILES} | {"/"}) | health == {*PATHS}


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
    operation = openapi.document(ROUTES, PAGES, OF_THE_SERVER, BOUNDS)["paths"][path]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{"error": 1}], schema)


@pytest.fixture(scope="module")
def models(embedder: Embedder) -> Models:
    return Models.of({NAME: embedder})


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

    monkeypatch.setattr(Embedder, "_answering", broken)
    message = Message(json.dumps(route.example).encode(), "application/json", NAME)
    answer = endpoint.answer(models, route, message)
    assert (answer.status, b"secret" in answer.body) == (500, False)
    wanted = route.refuse(Refusal(500, "internal_error", "m")).content
    jsonschema.validate(json.loads(answer.body), openapi.schema_of(wanted))


def test_a_name_chooses_among_several_models(embedder: Embedder) -> None:
    several = Models.of({"first": embedder, "second": embedder})
    assert several.find(None).name == "first"
    assert several.find("second").name == "second"
    assert [facts.name for facts in several.facts()] == ["first", "second"]
    with pytest.raises(UnknownModel, match=r"'third'.*'first', 'second'"):
        several.find("third")
    assert embedder.name == NAME


# -- what came is never repeated at length -----------------------------------------------------

BIG = "\u0007x\U0010ffff" * 300_000  # a third of it is four bytes long in JSON, the rest escaped
LONGEST_MESSAGE = 1_000
MORE: dict[str, list[Any]] = {
    "/score": [
        {"input_data": {"columns": ["text"], "data": [["a"]]}, "params": {name: value}}
        for name in ("normalize", "truncate", "on_error", "labels", "confidence", BIG)
        for value in (BIG, [BIG], {BIG: BIG})
    ],
    "/invocations": [{"dataframe_records": [{f"{BIG}{n}": "a" for n in range(3)}]}],
    "/azure-ai-search": [
        {"values": [{"recordId": BIG, "data": {"text": "a"}}] * 2},
        {"values": [{"recordId": "a", "data": {f"{BIG}{n}": "a" for n in range(3)}}]},
    ],
    "/v1/embeddings": [
        *({"input": "a", name: BIG} for name in ("encoding_format", "modality", "dimensions")),
        {"messages": [{"role": "user", "content": [{"type": BIG, BIG: 1}]}]},
    ],
    "/v1/classify": [
        {"text": "a", "labels": [BIG]},
        {"text": "a", "labels": {BIG: "a"}},
        {"text": "a", "labels": {"a": BIG}},
        {"text": "a", "labels": [["a", BIG]]},
    ],
    "/v2/embed": [{"input_type": "clustering", "texts": ["a"], "embedding_types": [BIG]}],
}


def inflated(route: Route) -> Iterator[Any]:
    """Bodies with a long text in place of each value and of each key."""
    yield from MORE.get(route.path, ())
    yield from mutants(route.example, [BIG, {BIG: BIG}])
    for body in mutants(route.example, [{"key": 0}]):
        yield json.loads(json.dumps(body).replace('"key"', json.dumps(BIG)))


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for item in value.items() for text in texts_of(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in texts_of(item))
    elif isinstance(value, str):
        yield value


def check_short(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    for text in texts_of(answer):
        assert len(text) < LONGEST_MESSAGE, text[:2000]
    for record in caplog.records:
        assert len(record.getMessage()) < LONGEST_MESSAGE, record.getMessage()[:2000]


@pytest.mark.slow
@each
def test_no_refusal_repeats_what_is_long(
    models: Models, route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for body in inflated(route):
        message = Message(json.dumps(body).encode(), "application/json", NAME)
        answer = endpoint.answer(models, route, message)
        assert answer.status < 500
        if answer.status != 200:
            check_short(json.loads(answer.body), caplog)


@each
def test_no_model_s_name_is_repeated_at_length(
    models: Models, route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({**route.example, "model": BIG}).encode()
    for message in (
        Message(body, "application/json", NAME),
        Message(json.dumps(route.example).encode(), "application/json", BIG),
        Message(b"{}", BIG, NAME),
        Message(b"{}", f"multipart/form-data; boundary={BIG}", NAME),
        Message(b"text\n" + BIG.encode(), "text/csv", NAME),
        Message(BIG.encode() + b"\na", "text/csv", NAME),
    ):
        answer = endpoint.answer(models, route, message)
        if answer.status != 200:
            check_short(json.loads(answer.body), caplog)


LONG_HEADER = "x" * 10_000


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/" + LONG_HEADER, {}),
        ("/models/" + LONG_HEADER, {}),
        ("/v1/models/" + LONG_HEADER, {}),
        ("/score", {"Host": LONG_HEADER}),
        ("/score", {"Origin": f"http://{LONG_HEADER}"}),
        ("/score", {"X-Request-Timeout": LONG_HEADER}),
        ("/score", {"X-Request-Id": LONG_HEADER}),
        ("/score", {"Content-Type": LONG_HEADER}),
        ("/invocations", {"Content-Type": LONG_HEADER}),
        ("/score", {"Content-Type": f"multipart/form-data; boundary={LONG_HEADER}"}),
        ("/score", {"Authorization": f"Bearer {LONG_HEADER}"}),
        ("/score", {"traceparent": LONG_HEADER}),
    ],
)
def test_no_header_or_path_is_repeated_at_length(
    base: str, path: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "score")
    with requests.Session() as session:
        for ask in (session.post, session.get):
            response = ask(base + path, headers=headers, timeout=60)
            assert response.status_code in (400, 403, 404, 405, 415, 421)
            check_short(response.json(), caplog)
            assert all(len(value) < LONGEST_MESSAGE for value in response.headers.values())


@pytest.mark.parametrize("part", ["image", "text", "model", "params", "x" * 900])
def test_no_part_of_a_form_is_repeated_at_length(
    models: Models, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    form = f'--b\r\nContent-Disposition: form-data; name="{part}"\r\n\r\n{BIG}\r\n--b--'
    message = Message(form.encode(), "multipart/form-data; boundary=b")
    answer = endpoint.answer(models, table.ROUTES[0], message)
    if answer.status != 200:
        check_short(json.loads(answer.body), caplog)


def test_the_document_says_what_each_page_is() -> None:
    paths = openapi.document(ROUTES, PAGES, OF_THE_SERVER, BOUNDS)["paths"]
    for page in (*PAGES, *OF_THE_SERVER):
        responses = paths[page.path.replace(":path}", "}")]["get"]["responses"]
        told = {one["description"] for status, one in responses.items() if status != "4XX"}
        assert told == {page.summary}
