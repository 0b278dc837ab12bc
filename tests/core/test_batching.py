"""Passes that callers share: what meets in them, whose turn it is, and whose failure it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from score.concurrency.cancellation import Cancellation
from score.contract.rows import Record, Row
from score.core.batching import Batcher, Pass
from score.core.deduplication import Deduplicated
from score.core.embedder import Embedder
from score.errors import Cancelled
from score.type_aliases import Matrix
from tests.support.blocking import blocking
from tests.support.images import random_image

MOST = 8


class Engine:
    """Computes [number, number + 1] of each number, and notes its passes. Held until released."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.released = threading.Event()
        self.begun = threading.Semaphore(0)
        self.refused: set[int] = set()

    def __call__(self, numbers: Sequence[Any]) -> Matrix:
        self.passes.append(list(numbers))
        self.begun.release()
        assert self.released.wait(10)
        if self.refused & set(numbers):
            raise ValueError(f"among {len(numbers)}")
        return np.array([[number, number + 1] for number in numbers], np.float32)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


def held(engine: Engine, threads: ThreadPoolExecutor, shared: Callable[..., Matrix]) -> Any:
    """A request of one number, 0, that computes until the engine is released."""
    first = threads.submit(shared, [0])
    assert engine.begun.acquire(timeout=10)
    return first


def waiting(batcher: Batcher, count: int) -> None:
    """Returns when so many requests wait."""
    until = time.monotonic() + 10
    while sum(len(queue._requests) for queue in batcher._queues) < count:
        assert time.monotonic() < until
        time.sleep(0.001)


def asked(
    batcher: Batcher, threads: ThreadPoolExecutor, shared: Callable[..., Matrix], *all_of: Any
) -> list[Any]:
    """Requests that wait one after another, in this order."""
    futures = []
    for numbers in all_of:
        futures.append(threads.submit(shared, numbers))
        waiting(batcher, len(futures))
    return futures


def test_what_comes_during_a_pass_is_the_next_pass(threads: ThreadPoolExecutor) -> None:
    batcher, engine = Batcher(), Engine()
    shared = blocking(batcher.shared(engine, MOST, lambda _: 1))
    first = held(engine, threads, shared)
    others = asked(batcher, threads, shared, [1], [2, 3], [4])
    engine.released.set()
    assert first.result().tolist() == [[0, 1]]
    assert [other.result().tolist() for other in others] == [[[1, 2]], [[2, 3], [3, 4]], [[4, 5]]]
    assert engine.passes[0] == [0]
    assert sorted(engine.passes[1]) == [1, 2, 3, 4]
    assert len(engine.passes) == 2


def test_each_call_is_told_of_its_passes(threads: ThreadPoolExecutor) -> None:
    batcher, engine = Batcher(), Engine()
    told: dict[int, list[Pass]] = {}
    shared = blocking(
        batcher.shared(
            engine,
            MOST,
            lambda _: 1,
            lambda done: told.setdefault(threading.get_ident(), []).append(done),
        )
    )
    began = time.time_ns()
    first = held(engine, threads, shared)
    others = asked(batcher, threads, shared, [1], list(range(2, 10)))
    engine.released.set()
    for future in (first, *others):
        future.result()
    sizes = sorted([(done.inputs, done.own) for done in passes] for passes in told.values())
    assert sizes == [[(1, 1)], [(8, 1)], [(8, 7), (1, 1)]]
    for passes in told.values():
        assert all(began <= done.began <= done.ended <= time.time_ns() for done in passes)


def test_a_large_request_does_not_keep_a_small_one_waiting(threads: ThreadPoolExecutor) -> None:
    batcher, engine = Batcher(), Engine()
    shared = blocking(batcher.shared(engine, MOST, lambda _: 1))
    held(engine, threads, shared)
    large = list(range(100, 200))
    futures = asked(batcher, threads, shared, large, [1], [2, 3])
    engine.released.set()
    assert [row[0] for row in futures[0].result()] == large
    assert engine.passes[1] == [100, 101, 102, 103, 104, 1, 2, 3]
    assert all(len(numbers) == MOST for numbers in engine.passes[1:-1])
    assert futures[2].result().tolist() == [[2, 3], [3, 4]]


def test_more_requests_than_a_pass_holds_are_served_as_they_came(
    threads: ThreadPoolExecutor,
) -> None:
    batcher, engine = Batcher(), Engine()
    shared = blocking(batcher.shared(engine, MOST, lambda _: 1))
    held(engine, threads, shared)
    futures = asked(batcher, threads, shared, *([number] for number in range(1, 21)))
    engine.released.set()
    assert [future.result()[0, 0] for future in futures] == list(range(1, 21))
    assert engine.passes[1:] == [[*range(1, 9)], [*range(9, 17)], [*range(17, 21)]]


def test_a_pass_is_bounded_by_cost(threads: ThreadPoolExecutor) -> None:
    batcher, engine = Batcher(), Engine()
    shared = blocking(batcher.shared(engine, MOST, int))
    held(engine, threads, shared)
    futures = asked(batcher, threads, shared, [4, 3, 2, 1], [100, 1])
    engine.released.set()
    for future in futures:
        future.result()
    assert sorted(number for numbers in engine.passes for number in numbers) == [
        0,
        1,
        1,
        2,
        3,
        4,
        100,
    ]
    assert all(sum(numbers) <= MOST or numbers == [100] for numbers in engine.passes)


def test_queues_take_turns(threads: ThreadPoolExecutor) -> None:
    batcher, images = Batcher(), Engine()
    before: list[int] = []  # passes of images when the text was computed

    def texts(numbers: Sequence[Any]) -> Matrix:
        before.append(len(images.passes))
        return np.zeros((len(numbers), 2), np.float32)

    of_images = blocking(batcher.shared(images, MOST, lambda _: 1))
    of_texts = blocking(batcher.shared(texts, MOST, lambda _: 1))
    held(images, threads, of_images)
    large = threads.submit(of_images, list(range(1000)))
    waiting(batcher, 1)
    text = threads.submit(of_texts, [7])
    waiting(batcher, 2)
    images.released.set()
    text.result()
    assert large.result().shape == (1000, 2)
    assert before == [2], "the text came after what was begun, and one pass of the older images"


def test_a_request_that_is_cancelled_in_its_turn_leaves_the_others_theirs(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, images = Batcher(), Engine()
    of_images = blocking(batcher.shared(images, MOST, lambda _: 1))
    of_texts = blocking(batcher.shared(lambda texts: np.zeros((len(texts), 2)), MOST, lambda _: 1))
    held(images, threads, of_images)
    call = Cancellation()
    gone = threads.submit(of_images, [1], call)
    waiting(batcher, 1)
    text = threads.submit(of_texts, [2], Cancellation(20))
    waiting(batcher, 2)
    (queue,) = [queue for queue in batcher._queues if queue.compute is images]
    take = queue.take

    def late() -> Any:
        call.cancel()
        return take()

    monkeypatch.setattr(queue, "take", late)
    images.released.set()
    assert text.result().shape == (1, 2)
    with pytest.raises(Cancelled):
        gone.result()


def test_a_failure_is_of_the_request_that_caused_it(threads: ThreadPoolExecutor) -> None:
    batcher, engine = Batcher(), Engine()
    shared = blocking(batcher.shared(engine, MOST, lambda _: 1))
    held(engine, threads, shared)
    engine.refused = {13}
    futures = asked(batcher, threads, shared, [1], [12, 13], [*range(14, 40)], [2])
    engine.released.set()
    with pytest.raises(ValueError, match="among 2"):
        futures[1].result()
    for future in (futures[0], futures[2], futures[3]):
        assert len(future.result())
    assert shared([5]).tolist() == [[5, 6]], "and it goes on"


def test_nothing_of_a_failed_request_is_computed_afterwards() -> None:
    batcher, engine = Batcher(), Engine()
    shared = blocking(batcher.shared(engine, MOST, lambda _: 1))
    engine.refused = {3}
    engine.released.set()
    with pytest.raises(ValueError, match="among 8"):
        shared(list(range(800)))
    assert shared([900]).tolist() == [[900, 901]]
    assert len(engine.passes) < 10


def test_what_was_computed_before_is_no_pass() -> None:
    engine = Engine()
    engine.released.set()
    deduplicated = Deduplicated(Batcher().shared(engine, MOST, lambda _: 1), 2, int)
    vectors = blocking(deduplicated.vectors)
    assert vectors([]).shape == (0, 2)
    assert vectors([1, 1]).tolist() == [[1, 2], [1, 2]]
    assert vectors([1]).tolist() == [[1, 2]]
    assert engine.passes == [[1]]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [Row(random_image(seed), "word " * (1 + seed % 40)) for seed in range(60)]


def alike(one: Record, other: Record) -> None:
    for name in ("image_features", "text_features"):
        vector, reference = getattr(one, name), getattr(other, name)
        assert np.abs(vector - reference).max() <= 1e-5 * np.abs(reference).max()


def test_a_rows_vectors_are_the_same_in_any_company(embedder: Embedder, rows: list[Row]) -> None:
    alone = [embedder.answer([row])[0] for row in rows]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda row: embedder.answer([row])[0], rows))
        threes = [rows[at : at + 3] for at in range(0, len(rows), 3)]
        in_threes = [record for answer in pool.map(embedder.answer, threes) for record in answer]
    for one, *others in zip(alone, together, in_threes, strict=True):
        for other in others:
            alike(other, one)
