"""Bodies nobody should send: always an answer, never a 500."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from score.core import endpoint
from score.core.embedder import Embedder, parts_of
from score.core.models import Models
from score.dialects import classify
from score.dialects.base import Message
from score.errors import ModelError
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
        assert isinstance(content, list)
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


def test_limits_on_the_whole_request(embedder: Embedder) -> None:
    small = Embedder(
        *parts_of(embedder),
        Settings(max_request_bytes=500, max_request_rows=3),
    )
    rows = {"columns": ["text"], "data": [["a"]] * 4}
    answer = endpoint.score(small, json.dumps({"input_data": rows}).encode())
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "too_large")
    answer = endpoint.score(small, b" " * 501)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "too_large")


def test_labels_of_texts_are_encoded_within_the_request(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, also where they are too long to be kept."""
    model = Embedder(*parts_of(embedder), Settings())
    encode, under_way = model._label_vectors._encode, list[int]()

    def counting(*asked: Any) -> Any:
        under_way.append(len(model._pipeline.admission._under_way))
        return encode(*asked)

    monkeypatch.setattr(model._label_vectors, "_encode", counting)
    body = {"text": "a boat", "labels": {"a": "x" * 2**20, "b": "a boat"}}
    message = Message(json.dumps(body).encode())
    answer = endpoint.answer(Models.only(model), classify.CLASSIFY, message)
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
    assert "at least 25002 tokens" in first["error"]["message"]
    assert time.process_time() - started < 10  # it was minutes


def test_a_bug_is_a_500_that_tells_nothing(embedder: Embedder, caplog: Any) -> None:
    class Broken:
        settings = Settings()

        def answer(self, *_: object, **__: object) -> None:
            raise ModelError("secret detail")

    answer = endpoint.score(Broken(), b'{"input_data": []}')  # type: ignore[arg-type]
    assert answer.status == 500
    assert json.loads(answer.body)["error"]["code"] == "internal_error"
    assert b"secret" not in answer.body
    assert "secret detail" in caplog.text  # the log has it
