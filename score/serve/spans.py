"""Traces by OpenTelemetry: a span for each request, with a child for each stage of its work.

Theory of operation. A request's trace is in a context variable, which goes with the request to
every thread that works for it; so a stage that is timed there becomes a child of its span. A
forward pass is shared: each request whose inputs it computed gets a child `encode` of its own, with
the pass's times and the number of inputs of all requests. Ended spans wait in a bounded queue for a
thread of OpenTelemetry's, which sends them. Where that takes too long, spans are dropped; no
request waits.

A span holds no payload, no URL, no header but the request's id and the trace's own, and no client's
address: as the log.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from requests import PreparedRequest, Response, Session, TooManyRedirects
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from score import __version__
from score.contract.rows import Record
from score.core.batching import Pass
from score.core.embedder import Embedder, pipeline_of
from score.core.observer import Observer, Stage
from score.errors import RowError
from score.serve.request_log import CURRENT, MONITORED, TRACE_ID, Request

log = logging.getLogger("score.serve")

_MOST_CHILDREN = 128  # of a request: one of 10,000 rows has 20,000 stages
_LONGEST_STATE = 512  # characters of `tracestate`: what W3C asks everybody to pass on
_LAST_EXPORT = 3.0  # seconds for the spans that are left when the server has stopped
_METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")

Attributes = Mapping[str, str | int]


class Spans:
    """The traces of a process, sent to a collector by OTLP over HTTP.

    Configured by OpenTelemetry's variables; raises what its libraries raise for unusable ones.
    """

    def __init__(self) -> None:
        # Its messages hold what clients send, what the collector answers, and secrets of its
        # variables; `_Reported` and `tracing` have ours.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter = _Reported(OTLPSpanExporter(session=_Session()))
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("score.serve", __version__)

    def around(self, app: ASGIApp) -> ASGIApp:
        """An application whose requests are traced, but for those of monitors."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] in MONITORED:
                # The context may be that of an earlier request on this connection.
                _TRACE.set(None)
                TRACE_ID.set("")
                await app(scope, receive, send)
                return
            trace = _Trace(self._tracer, scope)
            _TRACE.set(trace)
            TRACE_ID.set(trace.id)
            try:
                await app(scope, receive, send)
            finally:
                trace.end(CURRENT.get())

        return traced

    def watch(self, embedder: Embedder) -> None:
        """Traces the stages of a model's work, beside whoever observes it already."""
        pipeline = pipeline_of(embedder)
        pipeline.observe(_Stages(pipeline.observer))

    def close(self) -> None:
        """Sends what is left, for some seconds at most: a collector may be down, or not answer."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(_LAST_EXPORT)
        if thread.is_alive():
            log.warning("the last traces have not been sent: the collector does not take them")


class _Trace:
    """The span of one request, and its children. Safe to use from any thread."""

    def __init__(self, tracer: Tracer, scope: Scope) -> None:
        self._tracer = tracer
        self._method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        self._span = tracer.start_span(
            self._name(),
            _parent(scope["headers"]),
            SpanKind.SERVER,
            {"http.request.method": self._method, "url.scheme": scope["scheme"]},
        )
        self._context = set_span_in_context(self._span, Context())
        self._lock = threading.Lock()
        self._children = 0

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def child(
        self,
        name: str,
        began: int,
        ended: int,
        attributes: Attributes | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Adds a stage that is over; beyond the first `_MOST_CHILDREN` they are counted only.
        began, ended: Unix times in nanoseconds."""
        if not self._span.is_recording():
            return
        with self._lock:
            self._children += 1
            if self._children > _MOST_CHILDREN:
                return
        span = self._tracer.start_span(name, self._context, attributes=attributes, start_time=began)
        if error:
            _fail(span, error.code if isinstance(error, RowError) else type(error).__name__)
        span.end(ended)

    def end(self, request: Request | None) -> None:
        """Ends the span, which says what became of the request."""
        if request:
            self._describe(request)
        with self._lock:
            surplus = self._children - _MOST_CHILDREN
        if surplus > 0:
            self._span.set_attribute("score.stages_left_out", surplus)
        self._span.end()

    def _describe(self, request: Request) -> None:
        span = self._span
        span.set_attributes(
            {
                "score.request_id": request.id,
                "score.rows": request.rows,
                "score.errors": request.errors,
                "http.request.body.size": request.received,
                "http.response.body.size": request.sent,
            }
        )
        if request.route != "none":
            span.update_name(self._name(request.route))
            span.set_attribute("http.route", request.route)
        if request.status:
            span.set_attribute("http.response.status_code", request.status)
        if request.status >= 500:
            _fail(span, str(request.status))

    def _name(self, route: str = "") -> str:
        return f"{'HTTP' if self._method == '_OTHER' else self._method} {route}".rstrip()


_TRACE: ContextVar[_Trace | None] = ContextVar("trace", default=None)


class _Stages(Observer):
    """Makes spans of what is timed for a request, and passes all on to another observer."""

    def __init__(self, other: Observer) -> None:
        self._other = other

    @override
    def timed(self, stage: Stage) -> AbstractContextManager[object]:
        timed, trace = self._other.timed(stage), _TRACE.get()
        # A pass is timed on a thread that works for all requests; `passed` says for which.
        return timed if trace is None or stage == "encode" else _Timed(timed, trace, stage)

    @override
    def encoding(self, kind: str, inputs: int) -> None:
        self._other.encoding(kind, inputs)

    @override
    def passed(self, kind: str, done: Pass) -> None:
        self._other.passed(kind, done)
        if trace := _TRACE.get():
            counts = {"score.pass.inputs": done.inputs, "score.pass.own_inputs": done.own}
            trace.child("encode", done.began, done.ended, {"score.pass.kind": kind, **counts})

    @override
    def answered(self, records: Sequence[Record]) -> None:
        self._other.answered(records)


class _Timed:
    """A context that adds itself to a trace, around another one."""

    __slots__ = ("_began", "_other", "_stage", "_trace")

    def __init__(self, other: AbstractContextManager[object], trace: _Trace, stage: Stage) -> None:
        self._other, self._trace, self._stage = other, trace, stage
        self._began = 0

    def __enter__(self) -> None:
        self._began = time.time_ns()
        self._other.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._other.__exit__(kind, error, traceback)
        self._trace.child(self._stage, self._began, time.time_ns(), error=error)


def _fail(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


def _parent(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """The client's span, by the header `traceparent`; nothing where it is missing, repeated or
    malformed."""
    parents = [value.decode("latin-1") for name, value in headers if name == b"traceparent"]
    states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    if len(parents) != 1:
        return Context()
    carrier = {"traceparent": parents[0]}
    state = ",".join(states)
    if len(state) <= _LONGEST_STATE:
        carrier["tracestate"] = state
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _resource() -> Resource:
    """What sends the spans: ours, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say else."""
    ours = {
        "service.name": "clip-endpoints",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),  # tells the processes of `--workers` apart
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())


class _Session(Session):
    """Reads of a collector's answer its status alone, since there may be no end to it, and follows
    no redirect, which would lead the headers with a key elsewhere."""

    @override
    def send(self, request: PreparedRequest, **options: Any) -> Response:
        options["stream"] = True
        with super().send(request, **options) as answer:
            if 300 <= answer.status_code < 400:
                raise TooManyRedirects("the collector redirects")
            status = Response()
            status.status_code, status.reason = answer.status_code, answer.reason
            status.headers = answer.headers
            return status

    @override
    def get_redirect_target(self, resp: Response) -> None:
        """Nowhere."""


class _Reported(SpanExporter):
    """An exporter that does not raise, and says once when spans begin to be lost, and once when
    they arrive again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._arrives = True

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result, why = self._exporter.export(spans), "refused"
        except Exception as error:  # not its text, which may name the collector with its password
            result, why = SpanExportResult.FAILURE, type(error).__name__
        arrives = result is SpanExportResult.SUCCESS
        if arrives != self._arrives:
            self._arrives = arrives
            if arrives:
                log.info("traces reach the collector again")
            else:
                log.warning("traces do not reach the collector (%s) and are dropped", why)
        return result

    @override
    def shutdown(self) -> None:
        self._exporter.shutdown()
