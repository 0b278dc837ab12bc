"""Bodies nobody should send: always an answer, never a 500."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from score.core import endpoint
from score.core.embedder import Embedder, parts_of
from score.core.models import Models
from score.dialects import (
    azure,
    classify,
    cohere,
    huggingface,
    mlflow,
    openai,
    similarity,
    weaviate,
)
from score.dialects.base import RED_SQUARE, Message, Route
from score.errors import ModelError, RequestError
from score.settings import Settings

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_json = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["input_data", "columns", "data", "index", "image", "text", "params"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
_cells = _scalars | st.lists(_scalars, max_size=2) | st.dictionaries(st.text(max_size=2), _scalars)
_tables = st.fixed_dictionaries(
    {"columns": st.just(["image", "text"]), "data": st.lists(st.tuples(_cells, _cells), max_size=3)}
)
_bodies = _json | st.fixed_dictionaries(
    {"input_data": _tables, "params": st.just({"on_error": "report"})}
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(_bodies)
def test_any_json_is_answered(embedder: Embedder, body: Any) -> None:
    answer = endpoint.score(embedder, json.dumps(body).encode())
    content = json.loads(answer.body)
    if answer.status == 200:
        assert isinstance(content, list) or set(content) in ({"vector"}, {"values"})
    else:
        assert answer.status in (400, 413, 422)
        assert content["error"]["code"]
        assert content["error"]["message"]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(embedder: Embedder, body: bytes) -> None:
    assert endpoint.score(embedder, body).status == 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (gzip.compress(b'{"inputs": {"text": "a"}}', mtime=0), "compressed with gzip"),
        (b"text\na red apple\n", "CSV and parquet are for MLflow's server"),
    ],
)
def test_bodies_of_other_formats_are_told_why(embedder: Embedder, body: bytes, says: str) -> None:
    answer = endpoint.score(embedder, body)
    assert (answer.status, says in json.loads(answer.body)["error"]["message"]) == (400, True)


def test_the_limit_of_rows(embedder: Embedder) -> None:
    small = Embedder(
        *parts_of(embedder),
        Settings(max_request_rows=3),
    )
    rows = {"columns": ["text"], "data": [["a"]] * 4}
    answer = endpoint.score(small, json.dumps({"input_data": rows}).encode())
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "too_large")


def test_labels_of_texts_are_encoded_within_the_request(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, also where they are too long to be kept."""
    model = Embedder(*parts_of(embedder), Settings())
    encode, under_way = model._label_vectors._encode, list[int]()

    def counting(*asked: Any) -> Any:
        under_way.append(len(model._pipeline.admission._under_way.loads))
        return encode(*asked)

    monkeypatch.setattr(model._label_vectors, "_encode", counting)
    body = {"text": "a boat", "labels": {"a": ["x" * 1000] * 1100, "b": "a boat"}}
    message = Message(json.dumps(body).encode())
    answer = endpoint.answer(Models.of({model.name: model}), classify.CLASSIFY, message)
    (item,) = json.loads(answer.body)["data"]
    assert [label["label"] for label in item["labels"]] == ["b", "a"]
    assert under_way == [1]


def test_a_text_of_megabytes_costs_little(embedder: Embedder) -> None:
    started = time.process_time()
    for truncate in ("end", "error"):
        params = {"truncate": truncate, "on_error": "report"}
        body = {"input_data": {"columns": ["text"], "data": [["cat " * 2_000_000]] * 2}}
        answer = endpoint.score(embedder, json.dumps({**body, "params": params}).encode())
        assert answer.status == 200
    (first, _) = json.loads(answer.body)
    assert "at least 4098 tokens" in first["error"]["message"]
    assert time.process_time() - started < 10  # it was minutes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat" + " " * 20_000 + "dog", " tokens in the first 16,384 characters; the model"),
        (" " * 20_000 + "a cat", None),  # what is before a text does not count
    ],
)
def test_a_text_of_few_tokens_is_cut_only_on_request(
    embedder: Embedder, text: str, says: str | None
) -> None:
    def row(truncate: str) -> Any:
        params = {"truncate": truncate, "on_error": "report"}
        body = {"input_data": {"columns": ["text"], "data": [[text]]}, "params": params}
        (row,) = json.loads(endpoint.score(embedder, json.dumps(body).encode()).body)
        return row.get("error")

    assert row("end") is None
    assert row("error") is None if says is None else says in row("error")["message"]


def test_a_bug_is_a_500_that_tells_nothing(
    embedder: Embedder, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_of_a_bug(self: Embedder, *_: object, **__: object) -> None:
        raise ModelError("secret detail")

    monkeypatch.setattr(Embedder, "_answering", answer_of_a_bug)
    answer = endpoint.score(embedder, b'{"input_data": []}')
    assert answer.status == 500
    assert json.loads(answer.body)["error"]["code"] == "internal_error"
    assert b"secret" not in answer.body
    assert "secret detail" in caplog.text  # the log has it


# -- answers that are larger than their requests -----------------------------------------------

LONG = ["a" * 500_000, "b" * 500_000]  # the answer would be 500 MB for 500 rows
MANY = [str(number) for number in range(2_000)]
WORDY = [f"{number} " + "x" * 900 for number in range(400)]


def scoring(rows: int, labels: Any) -> Any:
    table = {"columns": ["image"], "data": [[RED_SQUARE]] * rows}
    return {"input_data": table, "params": {"labels": json.dumps(labels)}}


def zero_shot(labels: list[str], template: str) -> Any:
    parameters = {"candidate_labels": labels, "hypothesis_template": template}
    return {"inputs": RED_SQUARE, "parameters": parameters}


@pytest.mark.parametrize(
    ("route", "body", "says"),
    [
        (azure.SCORE, scoring(500, LONG), "a label may have 4,000 characters"),
        (azure.SCORE, scoring(1, {"a": LONG[0]}), "a prompt of 'a' may have 4,000 characters"),
        (azure.SCORE, scoring(101, MANY), "101 rows × 2,000 labels are more than the 200,000"),
        (azure.SCORE, scoring(100, WORDY), "would be 36,149,000 characters of the answer"),
        (mlflow.INVOCATIONS, scoring(500, LONG), "a label may have 4,000 characters"),
        (mlflow.INVOCATIONS, scoring(101, MANY), "101 rows × 2,000 labels"),
        (classify.CLASSIFY, {"text": ["a"] * 500, "labels": LONG}, "a label may have 4,000"),
        (classify.CLASSIFY, {"text": ["a"] * 101, "labels": MANY}, "101 rows × 2,000 labels"),
        (huggingface.ZERO_SHOT, zero_shot(LONG, "{}"), "a label may have 4,000 characters"),
        (huggingface.ZERO_SHOT, zero_shot(["a"], "{}" + LONG[0]), "'hypothesis_template' may"),
        (huggingface.ZERO_SHOT, zero_shot(WORDY, "{}" * 500), "a prompt of '0 x"),
        (huggingface.ZERO_SHOT, zero_shot([*map(str, range(9000))], "x" * 990 + "{}"), "together"),
        (similarity.SIMILARITY, {"a": ["a"] * 1001, "b": ["b"] * 1000}, "more than 1,000,000"),
    ],
)
def test_an_answer_far_larger_than_its_request_is_refused_before_any_work(
    embedder: Embedder, route: Route, body: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_stream", "embed", "label_vectors"):
        monkeypatch.setattr(Embedder, name, lambda *_, **__: pytest.fail("work was done"))
    sent = json.dumps(body).encode()
    status, content, peak = traced(embedder, route, sent)
    assert (status, says in content) == (413, True), content[:1000]
    assert len(content) < 1000
    assert peak < 8 * len(sent) + 8 * 2**20


def traced(embedder: Embedder, route: Route, sent: bytes) -> tuple[int, str, int]:
    """The status and the body of an answer, and the bytes that were allocated meanwhile."""
    models = Models.of({"m": embedder})
    tracemalloc.start()
    try:
        answer = endpoint.answer(models, route, Message(sent, "application/json", "m"))
        return answer.status, answer.body.decode(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_largest_answer_of_labels_is_of_bounded_size(embedder: Embedder) -> None:
    """Its request has 40 KB."""
    labels = [f"{number} " + "x" * 26 for number in range(1_000)]
    sent = json.dumps({"text": ["a"] * 200, "labels": labels}).encode()
    status, content, peak = traced(embedder, classify.CLASSIFY, sent)
    assert (status, content.count("score")) == (200, 200_000)
    assert peak < 100 * 2**20


def test_only_labels_that_can_be_probable_enough_count(embedder: Embedder) -> None:
    body = {"text": ["a"] * 101, "labels": MANY, "confidence": 0.01}
    assert traced(embedder, classify.CLASSIFY, json.dumps(body).encode())[0] == 200
    body["confidence"] = 5e-324
    assert traced(embedder, classify.CLASSIFY, json.dumps(body).encode())[0] == 413


IMAGE = RED_SQUARE
TWO = ["a", "b"]


@pytest.mark.parametrize(
    ("route", "body", "number"),
    [
        (azure.SCORE, {"input_data": {"image": [IMAGE], "text": ["a"]}}, 24),
        (mlflow.INVOCATIONS, {"inputs": {"text": TWO}}, 24),
        (openai.EMBEDDINGS, {"input": TWO}, 24),
        (openai.EMBEDDINGS, {"input": TWO, "encoding_format": "base64"}, 6),
        (cohere.EMBED, {"input_type": "image", "texts": TWO}, 24),
        (
            cohere.EMBED,
            {"input_type": "image", "texts": TWO, "embedding_types": ["base64", "float"]},
            30,
        ),
        (weaviate.VECTORIZE, {"texts": ["a"], "images": [IMAGE]}, 24),
        (classify.CLASSIFY, {"text": TWO, "labels": ["a"]}, 0),
        (similarity.SIMILARITY, {"a": TWO}, 0),
    ],
)
def test_an_answer_s_vectors_are_bounded_by_its_format(
    embedder: Embedder,
    route: Route,
    body: dict[str, Any],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two vectors; one byte less than they take is refused before anything is computed."""
    size = 2 * number * embedder.dimension
    message = Message(json.dumps(body).encode())
    content = b""
    for most in (size, 0):
        allowed = Embedder(*parts_of(embedder), Settings(max_answer_bytes=most))
        answered = endpoint.answer(Models.of({"": allowed}), route, message)
        assert answered.status == 200, answered.body[:500]
        content = answered.body
    if number:
        assert 0.6 * size < len(content) < size + 1_000
        refusing = Embedder(*parts_of(embedder), Settings(max_answer_bytes=size - 1))
        monkeypatch.setattr(Embedder, "_answering", None)
        answer = endpoint.answer(Models.of({"": refusing}), route, message)
        assert (answer.status, b"max_answer_bytes" in answer.body) == (413, True)


def test_python_and_streams_have_no_bound_of_answers(embedder: Embedder) -> None:
    unbounded = Embedder(*parts_of(embedder), Settings(max_scores=0))
    call = classify.parse(Message(json.dumps({"text": ["a"] * 101, "labels": MANY}).encode()))
    records = unbounded.answer(call.rows, call.params, classify_texts=True)
    assert sum(len(record.labels or ()) for record in records) == 202_000


@pytest.mark.parametrize("times", [1, 100_000])
def test_a_type_of_vectors_is_rendered_once(embedder: Embedder, times: int) -> None:
    body = {"input_type": "search_query", "texts": ["a"] * 100, "embedding_types": ["float"]}
    body["embedding_types"] = ["float"] * times
    began = time.process_time()
    assert traced(embedder, cohere.EMBED, json.dumps(body).encode())[0] == 200
    assert time.process_time() - began < 20


def test_a_refusal_does_not_keep_its_body(embedder: Embedder) -> None:
    """As an exception that is its own cause would, with all frames, until a collection."""
    body = json.dumps({"input_data": {"columns": ["imag"], "data": [["a"]]}}).encode()
    with pytest.raises(RequestError) as refused:
        endpoint._parsed(embedder.settings, azure.SCORE, Message(body, "application/json"))
    assert refused.value.__cause__ is not refused.value
