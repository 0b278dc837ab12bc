"""`GET /metrics` and `GET /version`: what they say is what was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from score import __version__
from score.core.embedder import Embedder, parts_of
from score.core.identity import Identity
from score.core.model_source import Loaded
from tests.serve.test_connections import TEXT
from tests.support.images import in_base64, random_image
from tests.support.in_process import IDENTITY, Running, running, serving, until

pytestmark = pytest.mark.process

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def server(embedder: Embedder) -> Iterator[Running]:
    with serving(embedder) as server:
        yield server


def post(server: Running, data: bytes) -> requests.Response:
    return requests.post(f"{server.url}/score", data=data, timeout=60)


def samples(server: Running) -> Samples:
    answer = requests.get(f"{server.url}/metrics", timeout=60)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(of: Samples, name: str, **labels: str) -> float:
    if set(labels) & {"code", "kind", "stage"}:
        labels["model"] = "clip-endpoints-emoji"
    return of.get((f"score_{name}", frozenset(labels.items())), 0.0)


def test_the_metrics_are_what_was_sent(server: Running) -> None:
    before = samples(server)
    image = in_base64(random_image(1, (32, 32)))
    rows = [{"text": "a"}, {"text": "b", "image": image}, {"text": 5}, {}, {"image": "%"}]
    mixed = json.dumps({"input_data": rows, "params": {"on_error": "report"}}).encode()
    bodies = [mixed, mixed, b"no json"]
    answers = [post(server, body) for body in bodies]
    requests.get(f"{server.url}/no/such/path", timeout=60)
    until(lambda: value(samples(server), "requests_total", route="none", status="404"))
    after = samples(server)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("requests_total", route="/score", status="200") == 2
    assert grown("requests_total", route="/score", status="400") == 1
    assert grown("requests_total", route="none", status="404") == 1
    assert grown("request_seconds_count", route="/score") == 3
    assert grown("received_bytes_total") == sum(map(len, bodies))
    assert grown("sent_bytes_total") > sum(len(answer.content) for answer in answers)
    codes = ("ok", "bad_type", "empty_row", "bad_base64")
    assert [grown("rows_total", code=code) for code in codes] == [4, 2, 2, 2]
    assert grown("batch_inputs_sum", kind="text") == 4
    assert grown("batch_inputs_sum", kind="image") == 2
    stages = ("tokenize", "fetch", "decode", "render")
    assert [grown("stage_seconds_count", stage=stage) for stage in stages] == [6, 4, 2, 2]
    assert grown("stage_seconds_count", stage="encode") >= 2
    assert grown("stage_seconds_sum", stage="encode") > 0
    assert value(after, "requests_in_progress") == 1  # this one
    assert value(after, "queue_inputs") == value(after, "queue_oldest_seconds") == 0
    assert after["process_resident_memory_bytes", frozenset()] > 10**7


def test_what_is_refused_before_it_has_a_route_counts_as_its_path_s(embedder: Embedder) -> None:
    go_on = threading.Event()

    def load() -> Loaded:
        assert go_on.wait(60)
        return Loaded(embedder, IDENTITY)

    with running(load, wait=False) as server:
        for path in ("/score", "/models/tested", "/no/such/path"):
            assert requests.post(server.url + path, timeout=60).status_code == 503
        go_on.set()
        until(lambda: requests.get(f"{server.url}/ping", timeout=60).status_code == 200)
        counted = samples(server)
        for route in ("/score", "/models/{model:path}", "none"):
            assert value(counted, "requests_total", route=route, status="503") == 1


def test_only_passes_that_happened_are_counted(server: Running) -> None:
    before = samples(server)
    assert post(server, TEXT).status_code == 200
    after = samples(server)
    for name, labels, passes in (
        ("batch_inputs_count", {"kind": "text"}, 1),
        ("batch_inputs_count", {"kind": "image"}, 0),
        ("stage_seconds_count", {"stage": "encode"}, 1),
    ):
        assert value(after, name, **labels) - value(before, name, **labels) == passes, labels


def test_what_waits(server: Running, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released = threading.Event(), threading.Event()
    right = parts_of(embedder).encoder.engine.texts

    def waits(batch: Any) -> Any:
        begun.set()
        released.wait(60)
        return right(batch)

    monkeypatch.setattr(parts_of(embedder).encoder.engine, "texts", waits)
    clients = [threading.Thread(target=post, args=(server, TEXT)) for _ in range(3)]
    clients[0].start()
    assert begun.wait(60)
    for client in clients[1:]:
        client.start()
    try:
        until(lambda: value(samples(server), "queue_inputs") == 2)
        assert value(samples(server), "queue_oldest_seconds") > 0
        assert value(samples(server), "requests_in_progress") == 4
    finally:
        released.set()
        for client in clients:
            client.join(60)
    until(lambda: value(samples(server), "queue_inputs") == 0)


def test_the_version(server: Running) -> None:
    identity = requests.get(f"{server.url}/version", timeout=60).json()
    (only,) = identity.pop("models")
    assert identity == {
        "version": __version__,
        "model": "tested",
        "fingerprint": "0123456789ab",
        "engine": "torch",
        "precision": "fp32",
        "device": "cpu",
    }
    assert only == {**identity, "state": "loaded"}
    assert value(samples(server), "model_info", **identity) == 1


def test_the_identity_of_a_model(embedder: Embedder) -> None:
    from score.folder.model_folder import EMBEDDED, ModelFolder

    folder = ModelFolder.open(EMBEDDED)
    identity = Identity.of(embedder)
    assert (identity.version, identity.fingerprint) == (__version__, folder.fingerprint())
    assert (identity.engine, identity.precision, identity.device) == ("torch", "fp32", "cpu")


def test_paths_and_ids_do_not_make_new_series(server: Running) -> None:
    for number in range(20):
        requests.get(f"{server.url}/path/{number}", timeout=60)
    until(lambda: value(samples(server), "requests_total", route="none", status="404") == 20)
    routes = {dict(labels).get("route") for _, labels in samples(server)}
    assert routes == {None, "none", "/metrics"}
