"""What the health routes say while the model is loaded, right, wrong or silent."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from score.core.embedder import Embedder, parts_of
from score.core.model_source import Loaded
from score.core.self_test import SelfTest
from score.errors import ModelError
from score.serve import health
from score.settings import Settings
from tests.dialects.asking import check_refusal
from tests.serve.test_connections import TEXT
from tests.support.in_process import IDENTITY, Running, running, serving, until

pytestmark = pytest.mark.process

KINDS = ["texts", "images"]


@pytest.fixture
def server(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(health, "_FRESH", 0.0)
    monkeypatch.setattr(health, "_PATIENCE", 30.0)
    with serving(embedder) as server:
        yield server


def get(server: Running, path: str) -> requests.Response:
    return requests.get(server.url + path, timeout=60)


def test_a_right_model_is_ready(server: Running) -> None:
    for path, body in (
        ("/health/live", {"status": "live"}),
        ("/health/ready", {"status": "ready"}),
        ("/ping", {"status": "ok"}),
    ):
        assert (get(server, path).status_code, get(server, path).json()) == (200, body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_computes_wrong_vectors_is_not_ready(
    server: Running, embedder: Embedder, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    right = getattr(parts_of(embedder).encoder.engine, kind)
    caplog.set_level(logging.INFO, "score")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_of(embedder).encoder.engine, kind, lambda batch: right(batch) + 0.5)
        answer = get(server, "/health/ready")
        reason = f"the vector of the {kind[:-1]} probe is wrong"
        assert (answer.status_code, answer.json()["reason"]) == (503, reason)
        assert get(server, "/ping").status_code == 503
        assert get(server, "/health/live").status_code == 200
    assert get(server, "/health/ready").status_code == 200
    assert [reason, "the model computes the right vectors again"] == [
        record.getMessage() for record in caplog.records if record.name == health.__name__
    ]


def test_a_model_that_fails_is_not_ready(server: Running, embedder: Embedder) -> None:
    def fails(batch: object) -> None:
        raise ModelError("secret detail")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_of(embedder).encoder.engine, "texts", fails)
        assert get(server, "/health/ready").json()["reason"] == "the text probe failed: ModelError"


def test_a_lack_of_memory_says_when_to_come_again(
    server: Running, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(batch: object) -> None:
        raise MemoryError

    monkeypatch.setattr(parts_of(embedder).encoder.engine, "texts", fails)
    answer = requests.post(f"{server.url}/score", data=TEXT, timeout=60)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")


def test_a_model_that_hangs_is_not_ready(
    server: Running, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.05)
    monkeypatch.setattr(health, "_STALE", 0.5)
    released, right = threading.Event(), parts_of(embedder).encoder.engine.texts

    def hangs(batch: Any) -> Any:
        released.wait(60)
        return right(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_of(embedder).encoder.engine, "texts", hangs)
        until(lambda: "no answer" in get(server, "/health/ready").text)
        released.set()
    until(lambda: get(server, "/health/ready").status_code == 200)


def test_a_busy_model_stays_ready(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.05)
    readiness, released = health.Readiness(embedder), threading.Event()
    readiness._checked -= 3600
    monkeypatch.setattr(readiness._test, "fault", lambda: "" if released.wait(60) else "late")

    async def asked_while_busy() -> str:
        fault = await readiness.fault()
        released.set()
        return fault

    assert asyncio.run(asked_while_busy()) == ""


def test_a_verdict_is_kept(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    fault = SelfTest.fault
    monkeypatch.setattr(SelfTest, "fault", lambda self: computed.append("") or fault(self))
    with serving(embedder) as server:
        for _ in range(5):
            assert get(server, "/health/ready").status_code == 200
    assert len(computed) == 1


def test_a_folder_without_probes_is_compared_with_itself(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder.load(tiny, Settings(device="cpu"))
    test = SelfTest(embedder)
    assert test.fault() == ""
    right = parts_of(embedder).encoder.engine.images
    monkeypatch.setattr(
        parts_of(embedder).encoder.engine, "images", lambda batch: right(batch) * 1.1
    )
    assert test.fault() == "the vector of the image probe is wrong"


def test_settings_that_refuse_the_probe_are_no_fault(embedder: Embedder) -> None:
    small = Settings(device="cpu", max_pixels=10)
    parts = parts_of(embedder)
    assert SelfTest(Embedder(*parts, small)).fault() == ""


def test_while_it_is_loaded_only_health_answers(embedder: Embedder) -> None:
    go_on = threading.Event()

    def load() -> Loaded:
        assert go_on.wait(60)
        return Loaded(embedder, IDENTITY)

    with running(load, wait=False) as server:
        for path in ("/v1/embeddings", "/v2/embed", "/models/tested", "/score"):
            refused = requests.post(server.url + path, data=TEXT, timeout=60)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            check_refusal(path, refused)
        assert get(server, "/health/live").status_code == 200
        for path in ("/health/ready", "/ping"):
            answer = get(server, path)
            assert answer.status_code == 503
            assert answer.json()["reason"] == "the model is being loaded"
        refused = requests.post(f"{server.url}/score", data=TEXT, timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "loading")
        assert refused.headers["Retry-After"] == "1"
        go_on.set()
        until(lambda: get(server, "/health/ready").status_code == 200)
        assert requests.post(f"{server.url}/score", data=TEXT, timeout=60).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def load() -> Loaded:
        raise ModelError("no such model")

    with running(load, wait=False) as server:
        until(lambda: server.server.should_exit)
        assert str(server.server.failure) == "no such model"
