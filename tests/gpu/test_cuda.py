"""An NVIDIA GPU computes what the CPU computes in fp32, in passes of every size and company."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import SIGLIP_ARCHITECTURES
from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.core.verify import verify
from score.errors import ModelError
from score.folder.model_folder import EMBEDDED
from score.model.encoder import Encoder, release_memory
from score.model.engines.cuda_graphs import Recorder
from score.model.engines.pytorch import PyTorch
from score.model.probes import difference
from score.settings import Settings
from score.texts.tokenizer import Ids
from score.type_aliases import FloatPrecision
from tests.support.images import as_png
from tests.support.pages import ROOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU"),
]

LEAST_COSINE = {"fp32": 0.9999999, "fp16": 0.99999, "bf16": 0.9995}
MOST_ERROR = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-2}  # of the largest value
COUNTS = (1, 2, 3, 5, 8, 13, 32, 33, 128, 150)


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = random_checkpoint.TINY
    tower = replace(tiny.vision.tower, activation=request.param)
    vision, text = replace(tiny.vision, tower=tower), replace(tiny.text, tower=tower)
    architecture = replace(tiny, vision=vision, text=text)
    return random_checkpoint.write(tmp_path_factory.mktemp("gpu") / "c", architecture)


def encoder_of(model: Path, device: str, precision: FloatPrecision = "fp32") -> Encoder:
    return parts_of(Embedder.load(model, Settings(device=device, precision=precision))).encoder


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    noise = np.random.default_rng(seed)
    return list(noise.integers(0, 256, (count, 224, 224, 3), dtype=np.uint8))


def texts(count: int, seed: int = 0) -> list[Ids]:
    noise = np.random.default_rng(seed)
    return [
        [49406, *noise.integers(1, 40_000, noise.integers(1, 76)).tolist(), 49407]
        for _ in range(count)
    ]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_vectors_are_the_cpus_in_every_size_of_pass(model: Path, precision: FloatPrecision) -> None:
    ours, theirs = encoder_of(model, "cuda", precision), encoder_of(model, "cpu")
    assert (ours.engine.device, ours.engine.precision) == ("cuda", precision)
    assert (ours.batch_size, theirs.batch_size) == (128, 32)
    pixels, ids = images(max(COUNTS)), texts(400)
    wanted = {"images": theirs.images(pixels), "texts": theirs.texts(ids)}
    for turn in range(3):  # as it comes, recorded, replayed
        for count in COUNTS:
            for kind, inputs in (("images", pixels), ("texts", ids)):
                vectors = getattr(ours, kind)(inputs[turn : turn + count])
                cosine, error = difference(vectors, wanted[kind][turn : turn + len(vectors)])
                assert cosine > LEAST_COSINE[precision], (turn, count, kind)
                assert error < MOST_ERROR[precision], (turn, count, kind)
    many = difference(ours.texts(ids), wanted["texts"])
    assert many[0] > LEAST_COSINE[precision]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_vectors_of_siglip_are_the_cpus(precision: FloatPrecision, tmp_path: Path) -> None:
    """Pooled by attention, and texts by their last token, padding included."""
    whole = SIGLIP_ARCHITECTURES["ViT-B-16-SigLIP-224"]
    tower = replace(whole.text.tower, layers=2)
    vision, text = replace(whole.vision, tower=tower), replace(whole.text, tower=tower)
    thin = random_checkpoint.write(tmp_path / "siglip", replace(whole, vision=vision, text=text))
    ours, theirs = encoder_of(thin, "cuda", precision), encoder_of(thin, "cpu")
    pixels = images(35)
    noise = np.random.default_rng(0).integers(0, text.vocabulary, (35, text.context))
    ids: list[Ids] = noise.tolist()
    wanted = theirs.images(pixels), theirs.texts(ids)
    for _ in range(3):
        for count in (1, 5, 35):
            for vectors, exact in (
                (ours.images(pixels[:count]), wanted[0][:count]),
                (ours.texts(ids[:count]), wanted[1][:count]),
            ):
                cosine, error = difference(vectors, exact)
                assert cosine > LEAST_COSINE[precision]
                assert error < MOST_ERROR[precision]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_row_alone_and_in_company_agree(model: Path, precision: FloatPrecision) -> None:
    encoder = encoder_of(model, "cuda", precision)
    pixels, ids = images(128), texts(200)
    together = encoder.images(pixels), encoder.texts(ids)
    for _ in range(2):
        for at in (0, 5, 127):
            assert difference(encoder.images([pixels[at]]), together[0][at : at + 1])[0] > 0.99999
            assert difference(encoder.texts([ids[at]]), together[1][at : at + 1])[0] > 0.99999


def test_many_threads_and_two_models_on_one_gpu(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (encoder_of(model, "cuda", precision) for precision in ("fp16", "bf16"))
    exact = encoder_of(model, "cpu")
    pixels, ids = images(40), texts(40)
    wanted = exact.images(pixels), exact.texts(ids)

    def asked(turn: int) -> float:
        encoder, count = (first, second)[turn % 2], 1 + turn % 7
        at = turn % 30
        ours = encoder.images(pixels[at : at + count]), encoder.texts(ids[at : at + count])
        theirs = wanted[0][at : at + count], wanted[1][at : at + count]
        return min(difference(a, b)[0] for a, b in zip(ours, theirs, strict=True))

    def loaded() -> None:
        for _ in range(5):
            encoder_of(model, "cuda").images(pixels[:3])
            release_memory()

    with ThreadPoolExecutor(9) as threads:
        loading = threads.submit(loaded)
        assert min(threads.map(asked, range(300))) > LEAST_COSINE["bf16"]
        loading.result()
    assert "CUDA graphs" not in caplog.text
    assert is_memory_given_back()


def is_memory_given_back() -> bool:
    """Whether the allocator still frees what is free, as it does not after a recording that was
    spoilt."""
    kept = torch.empty(2**26, dtype=torch.uint8, device="cuda")
    before = torch.cuda.memory_reserved()
    del kept
    release_memory()
    return torch.cuda.memory_reserved() < before


def test_a_pass_that_does_not_fit_is_halved(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [Row(image=pixels_as_png(image)) for image in images(96, seed=3)]
    exact = [record.image_features for record in Embedder.load(model).embed(rows)]
    settings = Settings(device="cuda", precision="fp32", batch_size=4096)
    embedder = Embedder.load(model, settings)
    list(embedder.embed(rows[:1]))  # what libraries keep for good
    release_memory()
    held, (_, whole) = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()
    torch.cuda.reset_peak_memory_stats()
    list(embedder.embed(rows))
    needed = torch.cuda.max_memory_reserved() - held
    release_memory()
    torch.cuda.set_per_process_memory_fraction((held + 0.7 * needed) / whole)
    try:
        for _ in range(3):
            for record, vector in zip(embedder.embed(rows), exact, strict=True):
                assert record.error is None
                assert record.image_features is not None
                assert vector is not None
                np.testing.assert_allclose(record.image_features, vector, atol=1e-3)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "does not fit in memory" in caplog.text
    assert is_memory_given_back()


def pixels_as_png(pixels: np.ndarray) -> bytes:
    return as_png(Image.fromarray(pixels))


def test_a_pass_that_cannot_be_recorded_is_computed(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recorder, "_recorded", refused)
    encoder, exact = encoder_of(model, "cuda"), encoder_of(model, "cpu")
    pixels = images(3)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            assert difference(encoder.images(pixels), exact.images(pixels))[0] > 0.9999999
    assert caplog.text.count("without further CUDA graphs: operation not permitted") == 1


SPOILT = """
import torch
from score.model.engines.cuda_graphs import Recorder

def encode(values):
    return values.float() * float(values.float().sum().cpu() > -1)

values = torch.arange(12.0).reshape(3, 4).pin_memory()
spoilt, sound = Recorder(encode, torch.device("cuda")), Recorder(torch.sqrt, torch.device("cuda"))
with torch.inference_mode():
    for _ in range(4):
        assert torch.equal(spoilt(values), values)
        assert torch.allclose(sound(values), values.sqrt())
"""


@pytest.mark.process
def test_a_kernel_that_waits_for_the_gpu_spoils_its_recording_alone() -> None:
    """No graph can hold it; passes go on. In a process of its own, whose allocator is in disorder
    then."""
    subprocess.run([sys.executable, "-c", SPOILT], cwd=ROOT, check=True)


def test_the_embedded_model_takes_half_precision_by_its_probes() -> None:
    settings = Settings(device="auto", precision="auto")
    assert Embedder.load(settings=settings).precision == "fp16"
    _, precision, findings = verify(EMBEDDED, settings)
    assert precision == "fp16 (torch)"
    assert all(finding.passed for finding in findings)


def test_memory_is_free_after_a_model(model: Path) -> None:
    def held_after_use() -> int:
        encoder = encoder_of(model, "cuda")
        for _ in range(3):
            encoder.images(images(64))
            encoder.texts(texts(64))
        assert torch.cuda.memory_allocated() > 2**24
        del encoder
        gc.collect()
        release_memory()
        return torch.cuda.memory_allocated()

    before = held_after_use()  # libraries keep some for good
    assert held_after_use() - before < 2**20


@pytest.mark.process
def test_a_model_on_a_gpu_is_refused_after_a_fork(model: Path) -> None:
    engine = encoder_of(model, "cuda").engine
    assert isinstance(engine, PyTorch)
    process = os.fork()
    if not process:
        try:
            engine.images(images(1))
        except ModelError as error:
            os._exit(0 if "before this process was forked" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
