"""Metrics in Prometheus' text format.

`score_…`: counters and histograms of requests, rows, passes and stages; `process_…`: the process.
"""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from typing_extensions import override

from score.contract.rows import Record
from score.core.batching import Backlog, Batcher
from score.core.embedder import pipeline_of
from score.core.identity import Identity
from score.core.model_source import Loaded
from score.core.observer import Observer, Stage
from score.serve.request_log import CURRENT, Request

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_INPUTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
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
        self.rows = self._counter("rows", "Answered rows, by error code or ok.", "code", "model")
        self.inputs = self._histogram(
            "batch_inputs", "Images or texts in one forward pass.", _INPUTS, "kind", "model"
        )
        self.stages = self._histogram(
            "stage_seconds", "Work on one input.", _SECONDS, "stage", "model"
        )
        self._batcher: Batcher | None = None
        depth = self._gauge("queue_inputs", "Images and texts that wait for a forward pass.")
        depth.set_function(lambda: self._backlog().inputs)
        oldest = self._gauge(
            "queue_oldest_seconds", "How long the request waits that waits longest."
        )
        oldest.set_function(lambda: self._backlog().seconds)
        about = [field.name for field in fields(Identity)]
        self._info = self._gauge("model_info", "Each loaded model.", *about)
        self._is_loaded = self._gauge("model_loaded", "1 while the model is loaded.", "model")
        self._loads = self._counter(
            "model_loads", "Attempts to load a model: loaded or failed.", "model", "result"
        )
        self._infos: dict[str, Sequence[str]] = {}  # by name, of models that are loaded

    def serves(self, names: Iterable[str]) -> None:
        """Adds the models that may be loaded."""
        for name in names:
            self._is_loaded.labels(name).set(0)

    def loaded(self, name: str, loaded: Loaded) -> None:
        """Counts a model that is loaded, and observes it."""
        pipeline = pipeline_of(loaded.embedder)
        self._batcher = pipeline.batcher  # which all models share
        pipeline.observe(_ModelObserver(self, name))
        self._is_loaded.labels(name).set(1)
        self._loads.labels(name, "loaded").inc()
        if loaded.identity:
            self._infos[name] = list(asdict(loaded.identity).values())
            self._info.labels(*self._infos[name]).set(1)

    def failed(self, name: str) -> None:
        """Counts a model that could not be loaded."""
        self._loads.labels(name, "failed").inc()

    def unloaded(self, name: str) -> None:
        """Counts a model as one that is not loaded."""
        self._is_loaded.labels(name).set(0)
        if info := self._infos.pop(name, None):
            self._info.remove(*info)

    def _backlog(self) -> Backlog:
        return self._batcher.backlog() if self._batcher else Backlog(0, 0.0)

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

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"score_{name}", help, labels, registry=self._registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"score_{name}", help, labels, registry=self._registry)

    def _histogram(self, name: str, help: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"score_{name}", help, labels, buckets=buckets, registry=self._registry)


class _ModelObserver(Observer):
    """Counts what one model does."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._rows, self._inputs, self._model = metrics.rows, metrics.inputs, model
        self._timers = {stage: metrics.stages.labels(stage, model) for stage in get_args(Stage)}

    @override
    def timed(self, stage: Stage) -> AbstractContextManager[object]:
        return _Timer(self._timers[stage].observe)

    @override
    def encoding(self, kind: str, inputs: int) -> None:
        self._inputs.labels(kind, self._model).observe(inputs)

    @override
    def answered(self, records: Sequence[Record]) -> None:
        codes = Count(record.error.code if record.error else "ok" for record in records)
        for code, rows in codes.items():
            self._rows.labels(code, self._model).inc(rows)
        if request := CURRENT.get():
            request.rows += len(records)
            request.errors += len(records) - codes["ok"]


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
