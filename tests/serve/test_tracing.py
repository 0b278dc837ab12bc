"""Traces of requests by OpenTelemetry, with a collector of our own that may misbehave."""

from __future__ import annotations

import http.client
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from score.core.embedder import Embedder
from score.deploy.simulate.ports import free_port
from score.serve.tracing import UNTRACED, tracing
from tests.support.hostile import Server
from tests.support.in_process import serving, until
from tests.support.surfaces import ROOT, OwnServer

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from tests.support.collector import Collector, Mood, Span

pytestmark = pytest.mark.process

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRETS = (b"k3y-of-a-client", b"confidential text", b"hunter2", b"127.0.0.1", b"secret.example")


def variables(collector: Collector, **more: str) -> dict[str, str]:
    quick = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **quick, **more}


def post(url: str, *rows: Any, **headers: str) -> requests.Response:
    body = {"input_data": list(rows), "params": {"on_error": "report"}}
    return requests.post(url, json=body, headers=headers, timeout=60)


@contextmanager
def own(
    collector: Collector,
    arguments: Sequence[str] = (),
    log: Path | None = None,
    **more: str,
) -> Iterator[OwnServer]:
    """`score serve` with a collector."""
    server = OwnServer(arguments=arguments, log=log, **variables(collector, **more))
    try:
        server.wait()
        yield server
    finally:
        with suppress(ProcessLookupError):  # it has been terminated
            server.stop()


class Traced:
    """A server and its collector."""

    def __init__(self, root: str, collector: Collector) -> None:
        self.root, self.url, self.collector = root, f"{root}/score", collector

    def of(self, id: str) -> tuple[Span, list[Span]]:
        """The span of the request with an id, and its children."""

        def found() -> list[Span]:
            spans = list(self.collector.spans)
            return [span for span in spans if span.attributes.get("score.request_id") == id]

        until(found)
        (span,) = found()  # a child ends, and arrives, before its parent does
        return span, [child for child in self.collector.spans if child.parent == span.id]


@pytest.fixture(scope="module")
def traced(embedder: Embedder) -> Iterator[Traced]:
    libraries = logging.getLogger("opentelemetry")
    level = libraries.level
    with Collector() as collector:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables(collector).items():
                patch.setenv(name, value)
            traces = tracing()
        with serving(embedder, traces=traces) as server:
            yield Traced(server.url, collector)
        traces.close()
    libraries.setLevel(level)


def test_a_request_is_a_span_with_its_stages(traced: Traced, images: Server) -> None:
    rows = [{"text": "a boat"}, {"image": images.url("/good.png")}]
    assert post(traced.url, *rows, traceparent=PARENT, **{"X-Request-Id": "a-1"}).ok
    span, children = traced.of("a-1")
    assert (span.trace, span.parent) == (PARENT[3:35], PARENT[36:52])
    assert (span.name, span.kind, span.failed) == ("POST /score", 2, False)
    assert span.attributes.pop("http.request.body.size") > 40
    assert span.attributes.pop("http.response.body.size") > 1000
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/score",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "score.request_id": "a-1",
        "score.rows": 2,
        "score.errors": 0,
    }
    names = sorted(child.name for child in children)
    assert names == ["decode", "encode", "encode", "fetch", "render", "tokenize"]
    for child in children:
        assert child.trace == span.trace
        assert span.began <= child.began <= child.ended <= span.ended
    passes = [child.attributes for child in children if child.name == "encode"]
    assert sorted(done["score.pass.kind"] for done in passes) == ["image", "text"]
    assert {(done["score.pass.inputs"], done["score.pass.own_inputs"]) for done in passes} == {
        (1, 1)
    }
    assert span.resource["service.name"] == "clip-endpoints"


def test_the_log_names_the_trace(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def lines() -> list[dict[str, Any]]:
        logged = [json.loads(line) for line in log.read_text().splitlines() if line]
        return [line for line in logged if line.get("request_id") == "l-1"]

    with Collector() as collector, own(collector, log=log) as server:
        assert post(server.url, {"text": "a"}, traceparent=PARENT, **{"X-Request-Id": "l-1"}).ok
        until(lines)
        (line,) = lines()
    assert line["trace_id"] == PARENT[3:35]


def test_nothing_secret_is_in_a_trace(traced: Traced) -> None:
    url = f"{traced.url}?token=hunter2"
    rows = [{"text": "confidential text"}, {"image": "http://secret.example/?sig=hunter2"}]
    post(url, *rows, Authorization="Bearer k3y-of-a-client", **{"X-Request-Id": "s-1"})
    traced.of("s-1")
    for secret in SECRETS:
        assert secret not in b"".join(traced.collector.bodies)


def test_libraries_log_nothing_that_clients_send(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"traceparent": PARENT, "tracestate": "hunter2 is no state"}
    assert post(traced.url, {"text": "a"}, **state, **{"X-Request-Id": "w-1"}).ok
    traced.of("w-1")
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_a_monitors_line_has_no_trace_of_an_earlier_request(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"input_data": [{"text": "a" * 100_000}]}).encode()  # pauses the reading
    host = traced.root.removeprefix("http://")
    with caplog.at_level(logging.DEBUG, "score.access"), requests.Session() as session:
        assert session.post(traced.url, data=body, timeout=60).ok
        assert session.get(f"http://{host}/health/live", timeout=60).ok
        until(lambda: len([r for r in caplog.records if r.name == "score.access"]) >= 2)
    lines = [record.fields for record in caplog.records if record.name == "score.access"]  # type: ignore[attr-defined]
    assert ["trace_id" in line for line in lines] == [True, False]


def test_a_stage_that_fails_says_by_which_code(traced: Traced) -> None:
    answer = post(traced.url, {"image": "%%%"}, {"image": "AAAA"}, **{"X-Request-Id": "e-1"})
    assert answer.ok
    span, children = traced.of("e-1")
    errors = {child.attributes.get("error.type") for child in children if child.failed}
    assert errors == {"bad_base64", "not_an_image"}
    assert (span.failed, span.attributes["score.errors"]) == (False, 2)


def test_a_large_request_has_a_bounded_number_of_children(traced: Traced) -> None:
    rows = [{"text": f"number {number}"} for number in range(300)]
    assert post(traced.url, *rows, **{"X-Request-Id": "n-1"}).ok
    span, children = traced.of("n-1")
    assert len(children) == 128
    left_out = span.attributes["score.stages_left_out"]
    assert left_out > 300 + 1 - 128


def test_requests_that_share_a_pass_each_have_it(traced: Traced) -> None:
    def ask(number: int) -> None:
        rows = [{"text": f"text {number} {row}"} for row in range(40)]
        assert post(traced.url, *rows, **{"X-Request-Id": f"p-{number}"}).ok

    for turn in range(0, 400, 8):
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, range(turn, turn + 8)))
        passes = [
            (child.began, child.ended, child.attributes["score.pass.inputs"], child.trace)
            for number in range(turn, turn + 8)
            for child in traced.of(f"p-{number}")[1]
            if child.name == "encode"
        ]
        shared = {
            done[:3] for done in passes if len({p[3] for p in passes if p[:3] == done[:3]}) > 1
        }
        if shared:
            return
    pytest.fail("no two requests have shared a pass")


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "nonsense")],
        [("traceparent", PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32))],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("traceparent", "00-" + "é" * 50)],
        [("traceparent", f"{PARENT}-{'x' * 20_000}")],
    ],
)
def test_a_malformed_parent_is_no_parent(
    traced: Traced, headers: list[tuple[str, str]], request: pytest.FixtureRequest
) -> None:
    id = f"m-{abs(hash(request.node.name))}"
    ask(traced, "POST", "/score", id, headers, b'{"input_data": [{"text": "a"}]}')
    span, _ = traced.of(id)
    assert span.parent == ""
    assert span.trace != PARENT[3:35]


def test_a_long_state_is_left_out(traced: Traced) -> None:
    for id, state in (("t-1", "a=1,b=2"), ("t-2", f"a={'x' * 250},b={'y' * 250},c={'z' * 250}")):
        post(
            traced.url, {"text": "a"}, traceparent=PARENT, tracestate=state, **{"X-Request-Id": id}
        )
    assert traced.of("t-1")[0].state == "a=1,b=2"
    span, _ = traced.of("t-2")
    assert (span.parent, span.state) == (PARENT[36:52], "")


def ask(
    traced: Traced,
    method: str,
    path: str,
    id: str,
    headers: list[tuple[str, str]] = (),  # type: ignore[assignment]
    body: bytes = b"",
) -> int:
    connection = http.client.HTTPConnection(traced.root.removeprefix("http://"), timeout=60)
    connection.putrequest(method, path)
    for name, value in (*headers, ("X-Request-Id", id), ("Content-Length", str(len(body)))):
        connection.putheader(name, value.encode())
    connection.endheaders(body)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("method", "path", "status", "name", "route"),
    [
        ("GET", "/nothing/hunter2", 404, "GET", None),
        ("BREW", "/score", 405, "HTTP /score", "/score"),
        ("GET", "/v1/models/a%20b", 404, "GET /v1/models/{model:path}", "/v1/models/{model:path}"),
    ],
)
def test_names_are_few(
    traced: Traced, method: str, path: str, status: int, name: str, route: str | None
) -> None:
    id = "r-" + re.sub("[^a-z0-9]", "", path)
    assert ask(traced, method, path, id) == status
    span, _ = traced.of(id)
    assert (span.name, span.attributes.get("http.route")) == (name, route)
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes["http.request.method"] == {"BREW": "_OTHER"}.get(method, method)


def test_what_monitors_ask_is_not_traced(traced: Traced) -> None:
    for path in ("/health/live", "/health/ready", "/ping", "/metrics"):
        assert ask(traced, "GET", path, "quiet") == 200
    assert ask(traced, "GET", "/version", "after") == 200
    traced.of("after")
    ids = [span.attributes.get("score.request_id") for span in traced.collector.spans]
    assert "quiet" not in ids


# -- configured by OpenTelemetry's variables -----------------------------------------------------


@pytest.mark.slow
def test_spans_are_sent_when_the_server_stops_and_variables_count() -> None:
    with Collector() as collector:
        name = {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=a"}
        late = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        with own(collector, **name, **late) as server:
            assert post(server.url, {"text": "a"}).ok
            assert not collector.spans
            server.terminate()
            assert server.ended(60) == 0
        resource = collector.spans[-1].resource
    assert (resource["service.name"], resource["deployment.environment"]) == ("shop", "a")


@pytest.mark.slow
def test_the_sampler_is_the_variables() -> None:
    with Collector() as collector:
        none = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
        with own(collector, **none) as server:
            assert post(server.url, {"text": "a"}).ok
            assert post(server.url, {"text": "a"}, traceparent=PARENT).ok
            until(lambda: [span for span in collector.spans if span.name == "POST /score"])
            server.terminate()
            server.ended(60)
        assert {span.trace for span in collector.spans} == {PARENT[3:35]}


@pytest.mark.slow
def test_each_worker_has_traces_of_its_own() -> None:
    with Collector() as collector, own(collector, ["--workers", "2"]) as server:

        def both() -> bool:
            with ThreadPoolExecutor(8) as threads:
                rows = [{"text": f"{number}"} for number in range(100)]
                list(threads.map(lambda _: post(server.url, *rows), range(8)))
            ids = {span.resource["service.instance.id"] for span in list(collector.spans)}
            return len(ids) == 2

        until(both)
        server.terminate()
        assert server.ended(60) == 0


# -- collectors that are no good -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mood", ["down", "refuses", "hangs", "redirects"])
def test_a_bad_collector_harms_no_request(mood: Mood | str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Collector("takes" if mood == "down" else mood) as collector:  # type: ignore[arg-type]
        environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "512"}
        if mood == "down":
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://user:pa55@127.0.0.1:{free_port()}"
        with own(collector, log=log, **environ) as server:
            for number in range(60):  # more spans than the queue holds
                assert post(server.url, *({"text": f"{number} {row}"} for row in range(40))).ok
            if mood != "hangs":
                until(lambda: "do not reach the collector" in log.read_text())
            server.terminate()
            began = time.monotonic()
            assert server.ended(60) == 0
            assert time.monotonic() - began < 25  # the collector hangs for 120 s
    text = log.read_text()
    assert text.count("do not reach the collector") <= 1
    assert "Traceback" not in text
    assert "pa55" not in text
    assert "secret" not in text
    if mood == "redirects":
        assert set(collector.paths) == {"/v1/traces"}


@pytest.mark.slow
def test_an_answer_without_end_is_not_read() -> None:
    with Collector("endless") as collector, own(collector) as server:
        for number in range(3):
            assert post(server.url, {"text": f"{number}"}).ok
            until(lambda wanted=number: len(collector.bodies) > wanted)
        server.terminate()
        assert server.ended(60) == 0


# -- off, or not usable --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off_unless_asked(environment: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert tracing(environment) is UNTRACED
    assert not caplog.records


def test_off_imports_nothing() -> None:
    code = (
        "import sys\n"
        "from score.serve import running\n"
        "running.tracing()\n"
        "print(*[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_headers_that_cannot_be_read_are_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer hunter2",
    }
    for variable, text in environment.items():
        monkeypatch.setenv(variable, text)
    with caplog.at_level(logging.WARNING):
        tracing(environment).close()
    assert "OTEL_EXPORTER_OTLP_HEADERS is no NAME=VALUE" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc' is no protocol of ours: http/protobuf"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9999", "OTEL_… is not usable: .*less than or equal"),
    ],
)
def test_unusable_variables_are_a_warning(
    name: str,
    value: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", name: value}
    for variable, text in environment.items():
        monkeypatch.setenv(variable, text)
    with caplog.at_level(logging.WARNING, "score"):
        assert tracing(environment) is UNTRACED
    (record,) = [record for record in caplog.records if record.name == "score.serve"]
    assert re.search(message, record.getMessage())


def test_a_missing_library_is_a_warning_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "score.serve.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING, "score"):
        assert tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) is UNTRACED
    (record,) = caplog.records
    assert "[trace]'" in record.getMessage()
