"""`/openapi.json` and `/docs`: what they say about bodies holds, and where examples are sent."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import requests

from score.dialects.base import Route
from score.dialects.schemas import Bounds
from tests.dialects.asking import IDS, ROUTES, path_of, post
from tests.dialects.conftest import MOST_ROWS

each = pytest.mark.parametrize("route", ROUTES, ids=IDS)
BOUNDS = Bounds(MOST_ROWS, 2_000)


def bodies_of(document: Any) -> dict[str, Any]:
    """Each path's description of its JSON bodies."""
    operations = {path: methods.get("post") for path, methods in document["paths"].items()}
    return {
        path: operation["requestBody"]["content"]["application/json"]
        for path, operation in operations.items()
        if operation
    }


@each
def test_the_document_says_what_a_body_is(base: str, route: Route) -> None:
    """The example is of the schema, and is answered; without a key that the schema requires, or
    with one that it does not know, neither."""
    document = requests.get(f"{base}/openapi.json", timeout=10).json()
    body = bodies_of(document)[route.path.replace(":path}", "}")]
    schema, example = body["schema"], body["example"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(example, schema)
    assert post(base, path_of(route), example).status_code == 200
    broken = [{**example, "nonsense": 1}]
    broken += [{k: v for k, v in example.items() if k != key} for key in example]
    for content in broken:
        valid = jsonschema.Draft202012Validator(schema).is_valid(content)
        assert valid == (post(base, path_of(route), content).status_code == 200), content


WRONG: dict[str, list[Any]] = {
    "/score": [
        {"input_data": {"columns": ["text"]}},
        {"input_data": {"data": [["a"]]}},
        {"input_data": {"columns": ["words"], "data": [["a"]]}},
        {"input_data": {"text": ["a"] * (MOST_ROWS + 1)}},
        {"input_data": [{"text": "a"}], "params": {"labels": ["x" * 4_001]}},
        {"input_data": [{"text": "a"}], "params": {"labels": ["a", "a"]}},
        {"input_data": [{"text": "a"}], "params": {"confidence": 1.5}},
        {"input_data": [{"text": "a"}], "params": {"normalise": True}},
        {"input_data": [{"text": "a"}], "inputs": [{"text": "a"}]},
    ],
    "/invocations": [{"instances": [{"text": "a"}] * (MOST_ROWS + 1)}, {"params": {}}],
    "/azure-ai-search": [
        {"values": [{"data": {"text": "a"}}]},
        {"values": [{"recordId": "0"}]},
        {"values": [{"recordId": str(n), "data": {"text": "a"}} for n in range(MOST_ROWS + 1)]},
    ],
    "/v1/embeddings": [
        {"input": []},
        {"input": "a", "messages": []},
        {"input": ["a"] * (MOST_ROWS + 1)},
        {"input": [{"text": "a", "image": "b"}]},
        {"input": "a", "encoding_format": "hex"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"text": "a"}]}]},
    ],
    "/v2/embed": [
        {"input_type": "a query", "texts": ["a"]},
        {"input_type": "image", "texts": ["a"], "images": ["b"]},
        {"input_type": "image", "inputs": [{}]},
        {"input_type": "clustering", "texts": ["a"], "embedding_types": ["int8"]},
    ],
    "/v1/classify": [
        {"text": "a", "labels": []},
        {"text": "a", "labels": ["x" * 4_001]},
        {"text": "a", "labels": {"a": ""}},
        {"text": "a", "labels": ["a"], "ontology": ["a"]},
        {"text": "a", "labels": ["a"], "confidence": -1},
    ],
    "/models/{model:path}": [
        {"inputs": "data:,", "parameters": {}},
        {"inputs": "data:,", "parameters": {"candidate_labels": []}},
        {"inputs": {}, "parameters": {"candidate_labels": ["a"]}},
        {"inputs": "a", "parameters": {"candidate_labels": ["a"], "hypothesis_template": "a"}},
    ],
    "/v1/similarity": [{"b": ["a"]}, {"a": []}, {"a": ["a"], "b": [{}]}],
    "/vectorize": [{"texts": "a"}, {"texts": ["a"] * (MOST_ROWS + 1)}],
    "/v2/models/{model:path}/infer": [
        {"inputs": []},
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [True], "data": ["a"]}]},
        *(
            {"inputs": [{key: value for key, value in tensor.items() if key != missing}]}
            for tensor in [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]
            for missing in tensor
        ),
    ],
}
"""Bodies that a path's schema excludes."""


@each
def test_what_the_schema_excludes_is_refused(base: str, route: Route) -> None:
    validator = jsonschema.Draft202012Validator(route.schema(BOUNDS))
    for body in WRONG[route.path]:
        assert not validator.is_valid(body), str(body)[:200]
        assert 400 <= post(base, path_of(route), body).status_code < 500, str(body)[:200]


def test_forms_have_schemas_of_their_own() -> None:
    forms = [route for route in ROUTES if "multipart/form-data" in route.takes]
    assert forms
    for route in forms:
        assert route.form is not None
        jsonschema.Draft202012Validator.check_schema(route.form(BOUNDS))
        assert {"image", "text"} < set(route.form(BOUNDS)["properties"])


@pytest.mark.parametrize("host", ["", "localhost", "score.example", "[::1]:8080", "10.0.0.1:80"])
def test_examples_go_where_the_page_came_from(base: str, host: str) -> None:
    headers = {"Host": host} if host else {}
    page = requests.get(f"{base}/docs", headers=headers, timeout=10).text
    for route in ROUTES:
        origin = f"http://{host}" if host else base
        assert f"curl {origin}{path_of(route)} " in page


@pytest.mark.parametrize("host", ["a';rm -rf ~;'", "<b>", "a/b", "user@evil.example", "a" * 300])
def test_a_host_that_is_none_is_not_shown(base: str, host: str) -> None:
    page = requests.get(f"{base}/docs", headers={"Host": host}, timeout=10).text
    assert f"curl {base}/score " in page
    assert host not in page


@pytest.mark.parametrize("said", ["https", "http", "javascript"])
def test_examples_have_the_scheme_that_a_proxy_names(base: str, said: str) -> None:
    page = requests.get(f"{base}/docs", headers={"X-Forwarded-Proto": said}, timeout=10).text
    wanted = base.replace("http:", f"{said}:") if said != "javascript" else base
    assert f"curl {wanted}/score " in page


def test_the_document_s_paths_are_relative_to_it(base: str) -> None:
    assert requests.get(f"{base}/openapi.json", timeout=10).json()["servers"] == [{"url": "."}]
