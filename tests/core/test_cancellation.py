"""A call that ends leaves every queue: of passes, of decoders, of downloads."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from score.concurrency.cancellation import Cancellation
from score.contract.params import Params
from score.contract.rows import Row
from score.core.batching import Batcher
from score.core.embedder import Embedder, parts_of
from score.core.preparation import Preparer
from score.errors import Cancelled, RequestTimeout
from score.settings import Settings
from score.type_aliases import Matrix
from tests.support.blocking import blocking
from tests.support.hostile import Server
from tests.support.images import random_image

LONG = 30  # seconds, which no test waits for


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def copy(embedder: Embedder, **settings: Any) -> Embedder:
    return Embedder(*parts_of(embedder), Settings(**settings))


class Held:
    """Computes zeros once it is released, and notes what it computed."""

    def __init__(self) -> None:
        self.passes: list[list[Any]] = []
        self.release = threading.Event()

    def __call__(self, inputs: Sequence[Any]) -> Matrix:
        self.passes.append(list(inputs))
        assert self.release.wait(LONG)
        return np.zeros((len(inputs), 2), np.float32)


def ended(answer: Future[Any], kind: type[Exception] = Cancelled) -> None:
    with pytest.raises(kind):
        answer.result(LONG)


# -- passes --------------------------------------------------------------------------------------


def test_a_call_that_ends_leaves_the_queue_of_passes(threads: ThreadPoolExecutor) -> None:
    batcher, engine, call = Batcher(), Held(), Cancellation()
    shared = blocking(batcher.shared(engine, 8, lambda _: 1))
    first = threads.submit(shared, [0])
    until(lambda: engine.passes)
    gone = [threads.submit(shared, [number, number], call) for number in range(1, 5)]
    (queue,) = batcher._queues
    until(lambda: len(queue._requests) == 4)
    call.cancel()
    for answer in gone:
        ended(answer)
    assert not queue._requests
    engine.release.set()
    assert first.result(LONG).shape == (1, 2)
    assert shared([9]).shape == (1, 2)
    assert engine.passes == [[0], [9]], "nothing of it is computed"


def test_a_call_that_ends_during_its_pass_is_released_at_once(threads: ThreadPoolExecutor) -> None:
    batcher, engine, call = Batcher(), Held(), Cancellation()
    shared = blocking(batcher.shared(engine, 8, lambda _: 1))
    computing = threads.submit(shared, list(range(100)), call)
    until(lambda: engine.passes)
    call.cancel()
    ended(computing)
    engine.release.set()
    assert shared([200]).shape == (1, 2)
    assert sum(map(len, engine.passes)) == 9


def test_a_call_that_times_out_leaves_the_queue_of_passes(threads: ThreadPoolExecutor) -> None:
    batcher, engine = Batcher(), Held()
    shared = blocking(batcher.shared(engine, 8, lambda _: 1))
    threads.submit(shared, [0])
    until(lambda: engine.passes)
    ended(threads.submit(shared, [1], Cancellation(0.02)), RequestTimeout)
    (queue,) = batcher._queues
    assert not queue._requests
    engine.release.set()


# -- decoding ------------------------------------------------------------------------------------


class HeldDecoder:
    """Decoding that waits until it is released. It notes the first byte of each image's file."""

    def __init__(self, model: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[int] = []
        self.release = threading.Event()
        preparer: Preparer = model._pipeline.preparer
        self._real = preparer._preprocessor
        monkeypatch.setattr(preparer, "_preprocessor", self)

    def read(self, data: bytes, *more: Any, **options: Any) -> Any:
        self.begun.append(data[-1])
        assert self.release.wait(LONG)
        return self._real.read(data[:-1], *more, **options)


def marked(mark: int, count: int = 1) -> list[Row]:
    """Images of their own, each with a mark at the end of its file."""
    return [Row(random_image(seed) + bytes([mark])) for seed in range(count)]


def test_images_that_wait_to_be_decoded_are_dropped(
    embedder: Embedder, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, call = copy(embedder, decode_workers=2), Cancellation()
    decoder = HeldDecoder(model, monkeypatch)
    answer = threads.submit(model.answer, marked(1, 30), None, call)
    until(lambda: len(decoder.begun) == 2)
    call.cancel()
    ended(answer)
    decoder.release.set()
    assert model.answer(marked(2))[0].error is None
    assert decoder.begun == [1, 1, 2]


def test_images_are_decoded_by_turns(
    embedder: Embedder, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of its own is the second at the latest, behind thirty of a large request."""
    model = copy(embedder, decode_workers=1)
    decoder = HeldDecoder(model, monkeypatch)
    large = threads.submit(model.answer, marked(1, 30))
    until(lambda: _queued(model) == 29)
    small = threads.submit(model.answer, marked(2))
    until(lambda: _queued(model) == 30)
    decoder.release.set()
    assert small.result(LONG)[0].error is None
    assert len(large.result(LONG)) == 30
    assert 2 in decoder.begun[1:3], decoder.begun


def _queued(model: Embedder) -> int:

    turns = model._pipeline.preparer._shared.decoders._turns
    return sum(map(len, turns._waiting.values()))


# -- whole calls ---------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def patient(embedder: Embedder, **settings: Any) -> Embedder:
    return copy(embedder, allow_hosts=("127.0.0.1",), row_deadline=60, read_timeout=60, **settings)


def test_a_cancelled_answer_gives_its_downloads_up(
    embedder: Embedder, server: Server, threads: ThreadPoolExecutor
) -> None:
    model, call = patient(embedder), Cancellation()
    before = threading.active_count()
    rows = [Row(server.url("/drip-body"))] * 40
    answer = threads.submit(model.answer, rows, None, call)
    until(lambda: server.requests["/drip-body"] >= 8)
    call.cancel()
    ended(answer)
    until(lambda: not server._open)
    until(lambda: threading.active_count() <= before + 3)
    assert server.requests["/drip-body"] < 40, "those that waited for a slot never began"


@pytest.mark.parametrize("on_error", ["raise", "report"])
def test_a_request_that_takes_too_long_ends_as_a_whole(
    embedder: Embedder, server: Server, on_error: Any
) -> None:
    model = patient(embedder, request_timeout=0.3)
    rows = [Row(text="a"), Row(server.url("/drip-body"))]
    with pytest.raises(RequestTimeout, match=r"within 0\.3 s"):
        model.answer(rows, Params(on_error=on_error))
    until(lambda: not server._open)
    assert len(model.answer([Row(text="a")])) == 1


def test_a_call_that_has_ended_is_not_begun(embedder: Embedder) -> None:
    call = Cancellation()
    call.cancel()
    with pytest.raises(Cancelled):
        embedder.answer([Row(text="a")], None, call)


def test_a_stream_that_is_dropped_gives_its_downloads_up(
    embedder: Embedder, server: Server
) -> None:
    stream = patient(embedder).embed([Row(text="a"), *[Row(server.url("/drip-body"))] * 4])
    next(stream)
    until(lambda: server.requests["/drip-body"] == 4)
    stream.close()  # type: ignore[attr-defined]
    until(lambda: not server._open)


def test_labels_of_a_cancelled_call_are_not_kept(embedder: Embedder) -> None:
    model, call = copy(embedder), Cancellation()
    call.cancel()
    labels = Params.parse({"labels": '["a", "b"]'}).labels
    assert labels is not None
    with pytest.raises(Cancelled):
        model._label_vectors.of(labels, "end", call)
    assert model.label_vectors(labels).shape[0] == 2


def test_a_call_is_not_kept_with_its_labels(embedder: Embedder) -> None:
    model, call = copy(embedder), Cancellation()
    labels = Params.parse({"labels": '["a", "b"]'}).labels
    assert labels is not None
    model._label_vectors.of(labels, "end", call)
    gone = weakref.ref(call)
    del call
    gc.collect()
    assert gone() is None
    assert model._label_vectors.not_kept(labels, "end") == [], "the vectors are"
