"""A pass that does not fit in memory is divided, and no thread dies of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from score.contract.rows import Row
from score.core import out_of_memory
from score.core.batching import Batcher
from score.core.embedder import Embedder, parts_of
from score.core.out_of_memory import Halving
from score.errors import OutOfMemory
from score.hardware.out_of_memory import is_out_of_memory
from score.settings import Settings
from score.type_aliases import Matrix
from tests.support.blocking import blocking


class Small:
    """Computes at most `room` numbers at a time, none that is 13, and notes the sizes it tried."""

    def __init__(self, room: int) -> None:
        self.room, self.sizes = room, list[int]()

    def __call__(self, numbers: Sequence[Any]) -> Matrix:
        self.sizes.append(len(numbers))
        if len(numbers) > self.room or 13 in numbers:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return np.array([[number] for number in numbers], np.float32)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("Exception from src/core: std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_known(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


def test_torch_says_so_in_these_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_pass_is_halved_until_it_fits_and_the_size_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(out_of_memory, "_now", lambda: now[0])
    small = Small(room=3)
    compute = Halving(small)
    assert compute(list(range(8))).tolist() == [[number] for number in range(8)]
    assert small.sizes == [8, 4, 2, 2, 2, 2]
    small.sizes.clear()
    assert compute(list(range(5))).tolist() == [[number] for number in range(5)]
    assert small.sizes == [2, 2, 1]
    small.sizes.clear()
    small.room, now[0] = 100, 61
    compute(list(range(8)))
    assert small.sizes == [8], "after a minute the whole size is tried again"


def test_an_input_that_does_not_fit_alone_is_its_requests_error() -> None:
    batcher = Batcher()
    shared = blocking(batcher.shared(Halving(Small(room=4)), 100, lambda _: 1))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(shared, [number]) for number in range(8, 18)]
    for number, answer in enumerate(answers, 8):
        if number == 13:
            with pytest.raises(OutOfMemory):
                answer.result()
        else:
            assert answer.result().tolist() == [[number]]
    assert shared([1]).tolist() == [[1]], "and it goes on"


def test_other_errors_are_raised_as_they_are() -> None:
    def compute(_: Sequence[Any]) -> Matrix:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Halving(compute)([1, 2])


def test_an_embedder_goes_on_with_smaller_passes(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row(text=f"text {number}") for number in range(20)]
    wanted = embedder.answer(rows)
    real, tried = parts_of(embedder).encoder.texts, list[int]()

    def texts(ids: Sequence[Any]) -> Matrix:
        tried.append(len(ids))
        if len(ids) > 6:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(ids)

    monkeypatch.setattr(parts_of(embedder).encoder, "texts", texts)
    model = Embedder(*parts_of(embedder), Settings())
    for record, reference in zip(model.answer(rows), wanted, strict=True):
        assert record.text_features is not None
        np.testing.assert_allclose(record.text_features, reference.text_features, atol=1e-5)
    assert tried == [20, 10, 5, 5, 5, 5]
