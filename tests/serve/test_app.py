"""How paths find their answers."""

from __future__ import annotations

import json

import pytest
import requests

from score.core.embedder import Embedder
from score.dialects import table
from score.serve.tracing import UNTRACED, tracing
from tests.support.in_process import serving

pytestmark = pytest.mark.process


def test_a_pattern_is_no_path(embedder: Embedder) -> None:
    """What stands in braces is the name of a model, also where it is the pattern's own text."""
    patterns = [route for route in table.ROUTES if "{" in route.path]
    assert patterns
    with serving(embedder) as server:
        for route in patterns:
            answer = requests.post(server.url + route.path, json=route.example, timeout=60)
            assert answer.status_code == 404, answer.text
            assert "{model:path}" in answer.text


def test_a_failure_outside_the_model_is_a_500_in_json(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("a bug")

    with serving(embedder) as server:
        monkeypatch.setattr("score.serve.app.response", fails)
        answer = requests.post(
            f"{server.url}/score", json={"input_data": [{"text": "a"}]}, timeout=60
        )
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert "bug" not in json.dumps(answer.json())


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("user:secret@collector:4318", "does not begin with http:// or https://"),
        ("grpc://user:secret@collector", "does not begin with http:// or https://"),
        ("http://user:secret@:4318", "names no host, or port 0 (host '')"),
        ("http://user:secret@collector:0", "(host 'collector')"),
        ("http://user:secret@collector:many", "its port is no number"),
        ("http://[::1", "is no URL"),
    ],
)
@pytest.mark.parametrize("kind", ["OTLP", "OTLP_TRACES"])
def test_a_collectors_url_that_is_none_is_told_with_its_variable_and_without_secrets(
    endpoint: str, reason: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    variable = f"OTEL_EXPORTER_{kind}_ENDPOINT"
    assert tracing({variable: endpoint}) is UNTRACED
    (line,) = caplog.messages
    assert line.startswith(f"requests are not traced: {variable} ")
    assert reason in line
    assert "secret" not in line
