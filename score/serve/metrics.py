"""Metrics in Prometheus' text format.

`score_…`: counters and histograms of requests, rows, passes and stages; `process_…`: the process.
"""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from typing_extensions import override

from score.contract.rows import Record
from score.core.embedder import Embedder, pipeline_of
from score.core.identity import Identity
from score.core.observer import Observer, Stage
from score.serve.request_log import CURRENT, Request

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_INPUTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics(Observer):
    """What has happened since the server started. Safe to use from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._counter("requests", "Answered requests.", "route", "status")
        self._request_seconds = self._histogram(
            "request_seconds",
            "From a request's headers to the end of its answer.",
            _SECONDS,
            "route",
        )
        self._in_progress = self._gauge("requests_in_progress", "Requests that are being answered.")
        self._received = self._counter("received_bytes", "Bytes of requests' bodies.")
        self._sent = self._counter("sent_bytes", "Bytes of answers' bodies.")
        self._rows = self._counter("rows", "Answered rows, by error code or ok.", "code")
        self._inputs = self._histogram(
            "batch_inputs", "Images or texts in one forward pass.", _INPUTS, "kind"
        )
        self._stages = self._histogram("stage_seconds", "Work on one input.", _SECONDS, "stage")
        self._timers = {stage: self._stages.labels(stage) for stage in get_args(Stage)}

    def identified(self, identity: Identity) -> None:
        """Adds which model is served."""
        model = Info("score_model", "The model that is served.", registry=self._registry)
        model.info(asdict(identity))

    def loaded(self, embedder: Embedder) -> None:
        """Adds what a loaded model has, and observes it."""
        pipeline = pipeline_of(embedder)
        depth = self._gauge("queue_inputs", "Images and texts that wait for a forward pass.")
        depth.set_function(lambda: pipeline.batcher.backlog().inputs)
        oldest = self._gauge(
            "queue_oldest_seconds", "How long the request waits that waits longest."
        )
        oldest.set_function(lambda: pipeline.batcher.backlog().seconds)
        pipeline.observe(self)

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self._registry)

    def request_started(self) -> None:
        """A request's headers have arrived."""
        self._in_progress.inc()

    def request_finished(self, request: Request) -> None:
        """A request has been answered."""
        self._in_progress.dec()
        self._requests.labels(request.route, str(request.status)).inc()
        self._request_seconds.labels(request.route).observe(request.seconds)
        self._received.inc(request.received)
        self._sent.inc(request.sent)

    @override
    def timed(self, stage: Stage) -> AbstractContextManager[object]:
        return _Timer(self._timers[stage].observe)

    @override
    def encoding(self, kind: str, inputs: int) -> None:
        self._inputs.labels(kind).observe(inputs)

    @override
    def answered(self, records: Sequence[Record]) -> None:
        codes = Count(record.error.code if record.error else "ok" for record in records)
        for code, rows in codes.items():
            self._rows.labels(code).inc(rows)
        if request := CURRENT.get():
            request.rows += len(records)
            request.errors += len(records) - codes["ok"]

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"score_{name}", help, labels, registry=self._registry)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(f"score_{name}", help, registry=self._registry)

    def _histogram(self, name: str, help: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"score_{name}", help, labels, buckets=buckets, registry=self._registry)


class _Timer:
    """A context that reports its duration in seconds."""

    __slots__ = ("_began", "_report")

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._report(time.perf_counter() - self._began)
