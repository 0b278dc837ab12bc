"""Passes that are padded to few shapes give the vectors of those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from score.core.embedder import Embedder, parts_of
from score.model.encoder import Encoder
from score.model.engines import passes
from score.model.engines.passes import RecordedPasses, padded_size
from score.model.engines.pytorch import PyTorch
from score.model.probes import difference
from score.model.transformer import SLOPE, ScaledLinear, quick_gelu, sloped_quick_gelu
from score.settings import Settings
from score.texts.packing import packed, powers, whole
from score.texts.tokenizer import Ids

LENGTHS = [3, 77, 5, 9, 30, 40, 12, 12, 77, 3, 4, 60, 8]


class OnCpu:
    """A recorder that computes each pass as it comes, and keeps its shapes."""

    shapes: ClassVar[list[tuple[torch.Size, ...]]] = []

    def __init__(self, encode: passes.Encode, device: torch.device) -> None:
        self._encode = encode

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(values.shape for values in inputs))
        return self._encode(*inputs)


@pytest.fixture
def recorded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """An encoder with the passes of a GPU, on this CPU."""

    def uninitialised(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        return torch.full(tuple(shape), 77, dtype=dtype)

    monkeypatch.setattr(passes, "Recorder", OnCpu)
    monkeypatch.setattr(passes, "pinned", uninitialised)
    monkeypatch.setattr(passes, "_pinned", torch.from_numpy)
    monkeypatch.setattr(OnCpu, "shapes", [])
    encoder = parts_of(Embedder.load(tiny, Settings(device="cpu"))).encoder
    engine = encoder.engine
    assert isinstance(engine, PyTorch)
    engine.pads_passes = True
    engine._passes = RecordedPasses(engine._images.encode, engine._texts.encode, engine._device)
    return encoder


def texts_of(lengths: Sequence[int]) -> list[Ids]:
    noise = np.random.default_rng(0)
    return [[*noise.integers(1, 40_000, length - 1).tolist(), 49407] for length in lengths]


def test_padded_passes_compute_the_same_vectors(recorded: Encoder, tiny: Path) -> None:
    plain = parts_of(Embedder.load(tiny, Settings(device="cpu"))).encoder
    noise = np.random.default_rng(0)
    images = list(noise.integers(0, 256, (21, 224, 224, 3), dtype=np.uint8))
    for count in (1, 2, 3, 5, 21):
        ours, theirs = recorded.images(images[:count]), plain.images(images[:count])
        assert difference(ours, theirs)[1] < 1e-5
    for count in range(1, len(LENGTHS) + 1):
        texts = texts_of(LENGTHS[:count])
        assert difference(recorded.texts(texts), plain.texts(texts))[1] < 1e-5
    one = [recorded.texts([text])[0] for text in texts_of(LENGTHS)]
    assert difference(np.stack(one), plain.texts(texts_of(LENGTHS)))[1] < 1e-5


def test_shapes_are_few_whatever_comes(recorded: Encoder) -> None:
    noise = np.random.default_rng(0)
    for count in range(1, 25):
        recorded.images(list(np.zeros((count, 224, 224, 3), np.uint8)))
    assert {shapes[0][0] for shapes in OnCpu.shapes} == {1, 2, 3, 4, 6, 8, 12, 16, 24}
    OnCpu.shapes.clear()
    for length in range(2, 78):
        recorded.texts(texts_of([length]))
    assert {shapes[0] for shapes in OnCpu.shapes} == {(1, 16), (1, 32), (1, 80)}
    OnCpu.shapes.clear()
    for _ in range(20):
        recorded.texts(texts_of(noise.integers(3, 78, noise.integers(20, 80)).tolist()))
    rows = {shapes[0][0] for shapes in OnCpu.shapes}
    assert len(set(OnCpu.shapes)) == len(rows), "of a number of rows there is one shape"
    assert rows <= {4, 6, 8, 12, 16, 24, 32, 48, 64}


def test_a_pass_is_padded_by_half_at_most() -> None:
    sizes = [padded_size(count) for count in range(1, 300)]
    assert all(count <= size < 1.5 * count for count, size in enumerate(sizes, 1))
    assert sorted(set(sizes))[:9] == [1, 2, 3, 4, 6, 8, 12, 16, 24]


def test_rows_are_divided_as_asked() -> None:
    texts = texts_of([77] * 70)
    assert [len(rows) for _, rows in packed(texts)] == [32, 32, 4, 2]
    assert [len(rows) for _, rows in packed(texts, 64, whole)] == [64, 6]
    assert [len(rows) for _, rows in packed(texts, 64, powers)] == [64, 4, 2]


def test_a_factor_of_a_layer_costs_no_rounding() -> None:
    """In bf16 QuickGELU by a factor is as near to the exact one as by three operations, or nearer;
    with its slope in the weights it is not."""
    torch.manual_seed(0)
    x, weight = torch.randn(64, 96), torch.randn(128, 96) / 10
    back, bias, last = torch.randn(96, 128) / 10, torch.randn(128), torch.randn(96)
    tensors = [tensor.bfloat16() for tensor in (x, weight, bias, back, last)]
    exact = [tensor.double() for tensor in tensors]
    wanted = F.linear(quick_gelu(F.linear(*exact[:3])), *exact[3:])

    x, weight, bias, back, last = tensors
    first, second = ScaledLinear(weight, bias * SLOPE, SLOPE), ScaledLinear(back, last, 1 / SLOPE)
    scaled = second(sloped_quick_gelu(first(x)))
    plain = F.linear(quick_gelu(F.linear(x, weight, bias)), back, last)
    of_scaled, of_plain = ((each.double() - wanted).norm() for each in (scaled, plain))
    assert of_scaled < 1.05 * of_plain
    assert of_scaled / wanted.norm() < 0.005
    assert first(x[None]).shape == (1, 64, 128)
