"""No request keeps other threads, a probe's answer above all, from running for long."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator

import numpy as np
import pytest

from fuzz.requests import WORST
from score.contract import wire
from score.core import endpoint
from score.core.embedder import Embedder
from score.core.models import Models
from score.dialects import azure, cohere, kserve, mlflow, openai, table
from score.dialects.base import Message, Route
from score.hardware import garbage
from tests.support.holding import longest_hold

HOLD = 0.045  # seconds of processor time; 0.1 of a clock are promised, to which others add
_ROWS = 9_990
_TEXTS = ["a"] * _ROWS
_TENSOR = {"name": "text", "datatype": "BYTES", "shape": [_ROWS], "data": _TEXTS}

CALLS: dict[str, tuple[str, object]] = {
    "azure": (azure.SCORE.path, {"input_data": {"text": _TEXTS}}),
    "mlflow": (
        mlflow.INVOCATIONS.path,
        {"dataframe_split": {"columns": ["text"], "data": [["a"]] * _ROWS}},
    ),
    "openai": (openai.EMBEDDINGS.path, {"input": _TEXTS}),
    "cohere": (cohere.EMBED.path, {"input_type": "search_query", "texts": _TEXTS}),
    "kserve": (kserve.INFER.path, {"inputs": [_TENSOR]}),
    "a surrogate in each record": (
        azure.SEARCH.path,
        {"values": [{"recordId": f"\ud800{n}", "data": {"text": "a"}} for n in range(_ROWS)]},
    ),
}


@pytest.fixture(scope="module")
def models(embedder: Embedder) -> Iterator[Models]:
    """Of a server, whose loaded objects are not looked at."""
    gc.collect()
    garbage.leave_out_what_is_loaded()
    yield Models.of({"clip": embedder})
    gc.unfreeze()


def _route(path: str) -> Route:
    return next(route for route in table.ROUTES if route.path == path)


@pytest.mark.parametrize("name", CALLS)
def test_answers_of_many_rows_let_other_threads_run(name: str, models: Models) -> None:
    path, content = CALLS[name]
    message = Message(json.dumps(content).encode(), "application/json", "clip")
    statuses = set()

    def work() -> None:
        statuses.add(endpoint.answer(models, _route(path), message).status)

    assert longest_hold(work, HOLD) < HOLD
    assert statuses == {200}


@pytest.mark.parametrize("name", ["lists", "wide depth", "labels", "tensors"])
def test_bodies_of_many_values_let_other_threads_run(name: str, models: Models) -> None:
    sent = WORST[name]
    route = next((route for route in table.ROUTES if route.path == sent.path), kserve.INFER)
    message = Message(sent.body, sent.kind, "clip")
    most = 2 * HOLD
    assert longest_hold(lambda: endpoint.answer(models, route, message), most) < most


def test_what_was_loaded_is_left_out_until_it_is_collected() -> None:
    garbage.leave_out_what_is_loaded()
    assert gc.get_freeze_count() > 0
    loop: list[object] = []
    loop.append(loop)
    left_out = gc.get_freeze_count()
    garbage.collect()
    assert gc.get_freeze_count() >= left_out // 2
    gc.unfreeze()
    garbage.collect()
    assert gc.get_freeze_count() == 0


def test_large_arrays_are_written_in_pieces() -> None:
    numbers = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    assert json.loads(wire.dump({"outputs": [{"data": numbers}]})) == {
        "outputs": [{"data": numbers.tolist()}]
    }
    content = {"outputs": [{"data": np.tile(numbers, 50)}]}
    assert longest_hold(lambda: wire.dump(content), HOLD) < HOLD
