"""What an NVIDIA GPU reaches, from tensors, from pixels and from bytes to vectors.

    python -m benchmarks.gpu                               all parts, of random weights
    python -m benchmarks.gpu --parts towers --models ViT-L-14 ViT-SO400M-14-SigLIP-384

`towers`: images whose pixels are on the GPU, in one recorded pass; the share of the rate of a
multiplication of 8192 × 8192 matrices, and the least cosine to fp32. `passes`: what the encoder
makes of arrays of pixels and of token ids, to vectors in memory, by their number. `variants`: what
recording, pinned memory and factors are worth. `rows`: `Embedder.embed`, of JPEGs of 640×480 in
bytes, and of captions, by CLIP's tokenizer. Medians, but of the last part.
Writes `OUTPUT/PART.json`; needs no checkpoint.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import fixtures, machine
from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import ALL_ARCHITECTURES
from score.console import commands
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.deploy.plan import image_flops
from score.folder.architecture import Architecture, Text
from score.folder.model_folder import ModelFolder
from score.hardware.processor import keep_share
from score.images.preprocess import Preprocessor
from score.model.encoder import Encoder
from score.model.engines.pytorch import DTYPES, Placement, PyTorch, layout_of
from score.model.image_tower import ImageTower
from score.model.probes import difference
from score.model.text_tower import TextTower
from score.settings import Settings
from score.texts.tokenizer import Tokenizer

MODELS = ("ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14-quickgelu", "ViT-H-14", "ViT-bigG-14")
SIDE = 8192  # of the matrices whose multiplication is the limit
BATCH = 128
IMAGES, TEXTS = (1, 8, 32, 128), (1, 64, 1024)  # at a time
PROCESSES = (1, 4)
COMPARED = 64  # images and texts whose vectors are compared with fp32's
SECONDS = 0.3  # for a measurement
DEVICE = torch.device("cuda")

Line = dict[str, Any]


class RandomWeights:
    """A checkpoint's tensors, drawn on the GPU: the same for each precision."""

    def __init__(self, architecture: Architecture, dtype: torch.dtype) -> None:
        self._shapes, self._dtype = architecture.shapes(), dtype
        self._random = torch.Generator(device=DEVICE)

    def __call__(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        shape = self._shapes[name]
        self._random.manual_seed(zlib.crc32(name.encode()))
        values = torch.randn(shape, device=DEVICE, generator=self._random)
        random_checkpoint.scale(name, values)
        return values.to(dtype or self._dtype)


def encoder_of(name: str, precision: str, *, factors: bool = True) -> Encoder:
    """A model with random weights on the GPU. `factors`: layers may have them."""
    architecture, placement = ALL_ARCHITECTURES[name], Placement(DEVICE, DTYPES[precision])
    take, layout = RandomWeights(architecture, placement.dtype), layout_of(placement)
    if not factors:
        layout = layout._replace(scaled=None)
    images = ImageTower(take, architecture.vision, clip()[1].normalisation(), layout)
    texts = TextTower(take, architecture.text, layout)
    engine = PyTorch(
        images, texts, 100.0, None, placement, plain=False, new_shapes_are_costly=False
    )
    return Encoder(architecture, engine, 0)


@cache
def clip() -> tuple[Tokenizer, Preprocessor]:
    """CLIP's tokenizer and image processor."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_checkpoint.write(Path(scratch) / "clip", random_checkpoint.TINY)
        opened = ModelFolder.open(folder)
        return Tokenizer.load(opened), Preprocessor.from_config(opened.preprocessor)


def images(architecture: Architecture, count: int) -> list[np.ndarray]:
    side = architecture.vision.image
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return list(noise)


def texts(text: Text, count: int) -> list[list[int]]:
    """Token ids as long as those of captions, in a model's own vocabulary; all of its context where
    it pads."""
    random = np.random.default_rng(0)
    if text.pads:
        return [random.integers(0, text.vocabulary, text.context).tolist() for _ in range(count)]
    captions = clip()[0].encode(fixtures.texts(count), "end")
    lengths = [len(ids) - 2 for ids in captions if isinstance(ids, list)]
    words = (random.integers(3, text.vocabulary - 2, length).tolist() for length in lengths)
    return [[text.begin, *ids, text.end] for ids in words]


# -- measuring -----------------------------------------------------------------------------------


def on_gpu(compute: Callable[[], object]) -> float:
    """Milliseconds of the GPU's own clock."""
    stamps = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]

    def one() -> float:
        stamps[0].record()
        compute()
        stamps[1].record()
        torch.cuda.synchronize()
        return float(stamps[0].elapsed_time(stamps[1]))

    return _median(one)


def on_clock(compute: Callable[[], object]) -> float:
    """Milliseconds until it returns."""

    def one() -> float:
        began = time.perf_counter()
        compute()
        return (time.perf_counter() - began) * 1e3

    return _median(one)


def _median(measure: Callable[[], float]) -> float:
    for _ in range(3):
        measure()  # as it comes, recorded, replayed
    values: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(values) < 5 or time.perf_counter() < end:
        values.append(measure())
    return statistics.median(values)


@cache
def matrix_rate(precision: str) -> float:
    """FLOP/s of a multiplication of large matrices."""
    first, second = (torch.randn(SIDE, SIDE, device=DEVICE).to(DTYPES[precision]) for _ in range(2))
    return 2 * SIDE**3 / on_gpu(lambda: first @ second) * 1e3


# -- the parts -----------------------------------------------------------------------------------


def towers(name: str, precision: str) -> Iterator[Line]:
    """Pixels on the GPU → vectors on the GPU."""
    encoder, exact = encoder_of(name, precision), _exact(name)
    cosines = [difference(*pair)[0] for pair in zip(_few(encoder), exact, strict=True)]
    engine = encoder.engine
    assert isinstance(engine, PyTorch)
    held = torch.from_numpy(np.stack(images(encoder.architecture, BATCH))).to(DEVICE)
    milliseconds = on_gpu(_recorded(engine._images.encode, held))
    reached = image_flops(encoder.architecture) * BATCH / milliseconds * 1e3
    yield {
        "images": BATCH,
        "ms": round(milliseconds, 3),
        "images/s": round(BATCH / milliseconds * 1e3),
        "TFLOP/s": round(reached / 1e12),
        "share": round(reached / matrix_rate(precision), 3),
        "1 - cosine, images": f"{1 - cosines[0]:.1e}",
        "1 - cosine, texts": f"{1 - cosines[1]:.1e}",
    }


@cache
def _exact(name: str) -> tuple[np.ndarray, np.ndarray]:
    return _few(encoder_of(name, "fp32"))


def _few(encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    architecture = encoder.architecture
    pixels, ids = images(architecture, COMPARED), texts(architecture.text, COMPARED)
    return encoder.images(pixels), encoder.texts(ids)


@torch.inference_mode()
def _recorded(encode: Callable[[Tensor], Tensor], held: Tensor) -> Callable[[], None]:
    """A replay of one pass."""
    graph = torch.cuda.CUDAGraph()
    encode(held)
    with torch.cuda.graph(graph):
        encode(held)
    return graph.replay


def passes(name: str, precision: str) -> Iterator[Line]:
    """Arrays in memory → vectors in memory."""
    encoder = encoder_of(name, precision)
    for count in IMAGES:
        pixels = images(encoder.architecture, count)
        yield _line("images", count, on_clock(partial(encoder.images, pixels)))
    for count in TEXTS:
        ids = texts(encoder.architecture.text, count)
        yield _line("texts", count, on_clock(partial(encoder.texts, ids)))


def _line(kind: str, count: int, milliseconds: float) -> Line:
    rate = round(count / milliseconds * 1e3)
    return {"kind": kind, "at a time": count, "ms": round(milliseconds, 2), "a second": rate}


def rows(name: str, precision: str) -> Iterator[Line]:
    """Bytes and strings → records, in one process, and in several that share the GPU."""
    for kind in ("images", "images, decoding fast", "texts"):
        for processes in PROCESSES:
            done, seconds, spent = together(processes, name, precision, kind)
            rate, busy = round(done / seconds), round(spent / seconds, 1)
            yield {"kind": kind, "processes": processes, "rows/s": rate, "cores busy": busy}


def together(processes: int, name: str, precision: str, kind: str) -> tuple[int, float, float]:
    """Rows that processes have embedded at the same time; seconds until the last one was done; and
    their CPU time."""
    context = multiprocessing.get_context("spawn")  # no GPU survives a fork
    barrier, answers = context.Barrier(processes), context.Queue()
    shared = (processes, barrier, answers, name, precision, kind)
    children = [context.Process(target=embed, args=(n, *shared)) for n in range(processes)]
    for child in children:
        child.start()
    answered = [answers.get(timeout=300) for _ in children]
    for child in children:
        child.join()
    done, began, ended, spent = zip(*answered, strict=True)
    return sum(done), max(ended) - min(began), sum(spent)


def embed(
    number: int,
    processes: int,
    barrier: threading.Barrier,
    answers: multiprocessing.Queue[tuple[int, float, float, float]],
    name: str,
    precision: str,
    kind: str,
) -> None:
    """What one of the processes does."""
    keep_share(number, processes)
    settings = Settings(device="cuda")
    if kind == "texts":
        asked = [Row(text=text) for text in fixtures.texts(40_000)]
    else:
        drawn = fixtures.images(fixtures.SMALL)
        asked = [Row(image=drawn[n % 64] + n.to_bytes(4, "big")) for n in range(3000)]
        settings = settings.replace({"decoding": "fast" if "fast" in kind else "exact"})
    embedder = Embedder(encoder_of(name, precision), *clip(), settings)
    _count(embedder.embed(asked[:600]))
    barrier.wait()
    began, spent = time.monotonic(), time.process_time()
    done = _count(embedder.embed(asked))
    answers.put((done, began, time.monotonic(), time.process_time() - spent))


def _count(records: Iterable[Any]) -> int:
    return sum(record.error is None for record in records)


def variants(name: str, precision: str) -> Iterator[Line]:
    """What the recording of passes, pinned memory and QuickGELU as a factor are worth."""
    encoder = encoder_of(name, precision)
    engine = encoder.engine
    assert isinstance(engine, PyTorch)
    encode = engine._images.encode
    for count in IMAGES:
        held = torch.from_numpy(np.stack(images(encoder.architecture, count))).to(DEVICE)
        launched = on_clock(partial(_waited, partial(encode, held)))
        yield _line("images, launched", count, launched)
        yield _line("images, recorded", count, on_clock(partial(_waited, _recorded(encode, held))))
    pageable = torch.from_numpy(np.stack(images(encoder.architecture, BATCH)))
    for kind, values in (("pageable", pageable), ("pinned", pageable.pin_memory())):
        copy = partial(values.to, DEVICE, non_blocking=True)
        yield _line(f"copied, {kind}", BATCH, on_clock(partial(_waited, copy)))
    held = pageable.to(DEVICE)
    for kind, factors in (("a factor", True), ("three operations", False)):
        images_of = encoder_of(name, precision, factors=factors).engine
        assert isinstance(images_of, PyTorch)
        milliseconds = on_gpu(_recorded(images_of._images.encode, held))
        yield _line(f"activation by {kind}", BATCH, milliseconds)


@torch.inference_mode()
def _waited(compute: Callable[[], object]) -> None:
    compute()
    torch.cuda.synchronize()


PARTS = {"towers": towers, "passes": passes, "variants": variants, "rows": rows}


def measured(part: str, models: Sequence[str], precisions: Sequence[str]) -> Iterator[Line]:
    """The lines of a part. Only the towers are of interest in more than one precision."""
    for name in models:
        for precision in precisions if part == "towers" else precisions[:1]:
            for line in PARTS[part](name, precision):
                yield {"model": name, "precision": precision, **line}
            gc.collect()
            torch.cuda.empty_cache()


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=ALL_ARCHITECTURES, default=MODELS)
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=("fp16", "bf16"))
    parser.add_argument("--output", type=Path, default=Path("out/bench-gpu"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    about = {**machine.described(), "gpu": torch.cuda.get_device_name()}
    print(json.dumps(about), flush=True)
    for part in options.parts:
        lines = []
        for line in measured(part, options.models, options.precisions):
            lines.append(line)
            print(part, ", ".join(f"{key} {value}" for key, value in line.items()), flush=True)
        file = options.output / f"{part}.json"
        file.write_text(json.dumps({"machine": about, "lines": lines}, indent=1))


if __name__ == "__main__":
    commands.run(main)
