"""Where the time of images goes: decoding them, then kind of operation by kind of operation.

    python -m benchmarks.profile [--model DIR]

In PyTorch, fp32 and, where the CPU has it, bf16, as its profiler counts; and, where the model has
it, in OpenVINO's int8, as OpenVINO counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks import fixtures
from score.console import commands
from score.folder.model_folder import ModelFolder
from score.hardware.processor import supports
from score.images.preprocess import Pixels, Preprocessor
from score.settings import Settings

BATCH, SHOWN = 32, 8


def of_pytorch(model: Path, pixels: Pixels, precision: str) -> Counter[str]:
    from torch.profiler import ProfilerActivity, profile

    from score.model.engines.pytorch import PyTorch

    settings = Settings(device="cpu").replace({"precision": precision})
    engine = PyTorch.load(ModelFolder.open(model), settings)
    images = list(pixels)
    engine.images(images)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        engine.images(images)
    return Counter({event.key: event.self_cpu_time_total / 1e6 for event in watched.key_averages()})


def of_int8(model: Path, pixels: Pixels) -> Counter[str]:
    import openvino

    from score.model.engines.openvino_towers import IMAGES, INT8

    properties = {"PERF_COUNT": True, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model / INT8 / IMAGES, "CPU", properties)
    request = compiled.create_infer_request()
    for _ in range(2):
        request.infer([pixels])
    seconds: Counter[str] = Counter()
    for node in request.get_profiling_info():
        seconds[node.node_type] += node.real_time.total_seconds()
    return seconds


def decoding(model: Path, *, fast: bool) -> float:
    """Seconds that one core takes for 64 images of mixed sizes."""
    preprocessor = Preprocessor.from_config(ModelFolder.open(model).preprocessor)
    cells = fixtures.mixed(fixtures.images(fixtures.SMALL + fixtures.LARGER), 64)
    most = Settings().max_pixels
    began = time.process_time()
    for data in cells:
        preprocessor.read(data, most, exif_orientation=False, fast=fast)
    return time.process_time() - began


def show(title: str, seconds: Counter[str]) -> None:
    whole = seconds.total()
    print(f"{title}: {whole / BATCH * 1e3:.1f} ms an image")
    for kind, spent in seconds.most_common(SHOWN):
        print(f"  {spent / whole:6.1%}  {kind}")


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: a ViT-B/32 with random weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = fixtures.model(options.model, Path(scratch), int8=True)
        for fast in (False, True):
            how = "fast" if fast else "exact"
            print(f"decoding 64 mixed images, {how}: {decoding(model, fast=fast):.2f} s of a core")
        side = ModelFolder.open(model).architecture.vision.image
        noise = np.random.default_rng(0)
        pixels = noise.integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
        for precision in ("fp32", "bf16") if supports("bf16") else ("fp32",):
            show(f"PyTorch, {precision}", of_pytorch(model, pixels, precision))
        if (model / "int8").is_dir():
            show("OpenVINO, int8", of_int8(model, pixels))


if __name__ == "__main__":
    commands.run(main)
