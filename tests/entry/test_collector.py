"""Azure's data collector: what it is told, and that no request fails for it."""

from __future__ import annotations

import http.server
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from azure.ai.ml import load_online_deployment

from score.core import endpoint
from score.core.embedder import Embedder
from score.deploy.check import check
from score.entry import collector
from tests.support.images import in_base64, random_image
from tests.support.surfaces import ROOT

ASKED = {"AZUREML_MDC_CONFIG_PATH": "/mdc/config.json"}
BOTH = ("model_inputs", "model_outputs")


class Collector:
    """As `azureml.ai.monitoring.Collector`, to which only some collections are enabled."""

    enabled: tuple[str, ...] = BOTH
    collected: ClassVar[list[tuple[str, pd.DataFrame, object, object]]]
    refuses: Exception | None = None

    def __init__(self, *, name: str, on_error: Callable[[Exception], Any] | None = None) -> None:
        self.name, self.on_error = name, on_error
        if name not in self.enabled:
            assert on_error, "by default the real one raises"
            on_error(Exception(f"collection {name} is not enabled, drop the data"))

    def collect(self, data: pd.DataFrame, correlation_context: object = None) -> object:
        if self.refuses:
            raise self.refuses
        context = correlation_context or object()
        self.collected.append((self.name, data, correlation_context, context))
        return context


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> type[Collector]:
    """The package, as far as it is used here."""

    class Fresh(Collector):
        collected: ClassVar[list[tuple[str, pd.DataFrame, object, object]]] = []

    names = ("azureml", "azureml.ai", "azureml.ai.monitoring")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].Collector = Fresh  # type: ignore[attr-defined]
    return Fresh


def ask(embedder: Embedder, data: list[list[Any]], **params: Any) -> bytes:
    body = {"input_data": {"columns": ["image", "text"], "data": data}, "params": params}
    return json.dumps(body).encode()


def test_requests_and_answers_are_frames_of_one_context(
    azure: type[Collector], embedder: Embedder
) -> None:
    collection = collector.start(ASKED)
    inline = in_base64(random_image(1))
    url = "https://me:secret@127.0.0.2/a.png?sig=secret#secret"
    body = ask(embedder, [[inline, "a cat"], ["", "a dog"], [url, ""]], on_error="report")
    answer = endpoint.score(embedder, body, collection)
    assert answer.status == 200
    (first, inputs, _, context), (second, outputs, given, _) = azure.collected
    assert (first, second) == BOTH
    assert given is context
    assert list(inputs.columns) == ["request", "row", "image", "text"]
    assert inputs["image"].tolist()[:2] == ["inline", None]
    assert inputs["image"][2].startswith("https://")
    assert "secret" not in inputs.to_json()
    assert inputs["text"].tolist()[:2] == ["a cat", "a dog"]
    assert inputs["row"].tolist() == [0, 1, 2]
    (request,) = set(inputs["request"]) | set(outputs["request"])
    lines = json.loads(outputs.to_json(orient="records"))  # as the real one sends a frame
    told = json.loads(answer.body)
    assert lines[0]["image_features"] == pytest.approx(told[0]["image_features"], rel=1e-6)
    assert lines[1]["image_features"] is None
    assert lines[2]["error"] == told[2]["error"]["code"]
    endpoint.score(embedder, body, collection)
    assert request not in set(azure.collected[-1][1]["request"])


def test_labels_are_collected(azure: type[Collector], embedder: Embedder) -> None:
    body = ask(embedder, [[in_base64(random_image(1)), ""]], labels=["a cat", "a dog"])
    assert endpoint.score(embedder, body, collector.start(ASKED)).status == 200
    outputs = azure.collected[-1][1]
    assert sorted(outputs["labels"][0]) == ["a cat", "a dog"]
    assert sum(outputs["probs"][0]) == pytest.approx(1)


def test_a_request_that_is_refused_is_not_collected(
    azure: type[Collector], embedder: Embedder
) -> None:
    assert endpoint.score(embedder, b"{", collector.start(ASKED)).status == 400
    assert not azure.collected


@pytest.mark.parametrize("environ", [{}, {"AZUREML_MDC_ENABLED": "false"}])
def test_it_is_off_unless_the_deployment_asks(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "azureml", None)  # importing it would fail
    assert collector.start(environ) is None
    assert not caplog.records


def test_a_package_that_is_not_there_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "azureml", None)
    assert collector.start({"AZUREML_MDC_ENABLED": "true"}) is None
    assert "add azureml-ai-monitoring to the environment" in caplog.text


@pytest.mark.parametrize("only", BOTH)
def test_a_collection_that_is_left_out(
    only: str, azure: type[Collector], embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    azure.enabled = (only,)
    body = ask(embedder, [["", "a cat"]])
    with caplog.at_level(logging.INFO):
        assert endpoint.score(embedder, body, collector.start(ASKED)).status == 200
    assert [name for name, *_ in azure.collected] == [only]
    assert "is not enabled, drop the data" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_no_request_fails_for_it(
    azure: type[Collector], embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    azure.refuses = RuntimeError("the queue is full")
    answer = endpoint.score(embedder, ask(embedder, [["", "a cat"]]), collector.start(ASKED))
    assert answer.status == 200
    assert "a request was not collected: the queue is full" in caplog.text


def test_a_collector_that_cannot_start_is_a_warning(
    azure: type[Collector], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: object) -> None:
        raise OSError("no config.json")

    monkeypatch.setattr(sys.modules["azureml.ai.monitoring"], "Collector", broken)
    assert collector.start(ASKED) is None
    assert "OSError: no config.json" in caplog.text


def test_the_documented_section_is_what_azures_sdk_takes(tmp_path: Path) -> None:
    guide = (ROOT / "docs/azure.md").read_text(encoding="utf-8")
    section = re.search(r"```yaml\n(data_collector:.*?)```", guide, re.DOTALL)
    assert section
    file = tmp_path / "deployment.yml"
    deployment = (ROOT / "components/online/deployment-cpu.yml").read_text(encoding="utf-8")
    file.write_text(deployment.replace("code: ../..", f"code: {ROOT}") + section[1])
    collected = load_online_deployment(file).data_collector
    assert set(collected.collections) == set(BOTH)
    assert all(each.enabled == "true" for each in collected.collections.values())
    assert check([file], beside=[ROOT / "components", ROOT / "environment"]) == []


class _Sink(http.server.BaseHTTPRequestHandler):
    """What stands beside a container and takes what is collected."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def sink() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Sink)
    server.got = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_azures_own_package_sends_it(
    sink: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azureml.ai.monitoring import init as monitoring

    monkeypatch.setenv("AZUREML_MDC_ENABLED", "true")
    monkeypatch.setenv("AZUREML_MDC_PORT", str(sink.server_address[1]))
    collection = collector.start({"AZUREML_MDC_ENABLED": "true"})
    answer = endpoint.score(embedder, ask(embedder, [["", "a cat"]]), collection)
    monitoring.teardown(wait_for_flush=True)
    (_, one, inputs), (_, two, outputs) = sink.got
    assert (one["ce-type"], two["ce-type"]) == tuple(f"azureml.inference.{name}" for name in BOTH)
    assert one["ce-x-request-id"] == two["ce-x-request-id"]
    assert json.loads(inputs)[0]["text"] == "a cat"
    vector = json.loads(outputs)[0]["text_features"]
    assert np.allclose(vector, json.loads(answer.body)[0]["text_features"], atol=1e-6)
