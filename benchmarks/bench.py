"""How fast it is, beside what a user would write first, and beside the machine's own limit.

    make bench                                       everything, of a ViT-B/32 with random weights
    python -m benchmarks.bench --turns 3 --tasks texts --with transformers "ours fp32 torch"

Every contender has a process of its own and loads the same checkpoint; they take turns, so that
other load on the machine affects all of them. Medians and ranges of all turns.
Writes `results.json`, `table.md` and `plot.svg` into `--output`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fixtures, machine
from score.console import commands
from score.deploy.plan import image_flops
from score.folder.architecture import Architecture
from score.folder.model_folder import ModelFolder
from score.hardware.processor import supports
from score.model.zeroshot import unit
from score.settings import MIB

with commands.required_imports(__name__):
    import pandas as pd

    from benchmarks.contenders import (
        BASELINE,
        OPEN_CLIP,
        WRAPPER,
        Worker,
        bare_start,
        is_ours,
        settings,
    )

LATENCY = 0.05  # seconds that the image server waits
ROWS = 64
BATCH = 32
DEFAULT = [BASELINE, "ours fp32 torch", "ours fp32 openvino"]
HALF = ["ours bf16 torch", "ours bf16 openvino", "ours bf16 openvino fast"]
DEFAULT += HALF if supports("bf16") else []
DEFAULT += ["ours int8 openvino", "ours int8 openvino fast"]
DEFAULT += [OPEN_CLIP] if find_spec("open_clip") else []
ALONE = "model only"
TASKS = ("URL, 640×480", "URL, mixed", "base64, 640×480", "base64, mixed", "texts")

Results = dict[str, dict[str, list[float]]]


def frames(urls: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    images = fixtures.images(fixtures.SMALL + fixtures.LARGER)
    inline = [fixtures.in_base64(image) for image in images]
    for where, cells in (("URL", urls), ("base64", inline)):
        yield f"{where}, 640×480", pd.DataFrame({"image": fixtures.small(cells, ROWS), "text": ""})
        yield f"{where}, mixed", pd.DataFrame({"image": fixtures.mixed(cells, ROWS), "text": ""})
    yield "texts", pd.DataFrame({"image": "", "text": fixtures.texts(4 * ROWS)})


# -- the machine's limit -------------------------------------------------------------------------


def gemms(names: list[str]) -> dict[str, Callable[[], float]]:
    """How to measure the rates of bare multiplications, in GFLOP/s, by precision."""
    asked = {_precision(name) for name in names}
    ways = {"fp32": _gemm_torch, "bf16": _gemm_torch, "int8": _gemm_int8}
    return {precision: way(precision) for precision, way in ways.items() if precision in asked}


def _gemm_torch(precision: str) -> Callable[[], float]:
    """PyTorch's, at the sizes of a ViT-B/32's MLP, in and out again; with the weights as
    they come or in blocks, whichever is faster.
    """
    import torch

    from score.model.engines import one_dnn
    from score.model.engines.pytorch import DTYPES
    from score.model.transformer import MakeLinear, Plain

    sizes = (BATCH * 50, 768), (3072, 768), (768, 3072)
    x, wide, narrow = (torch.randn(size).to(DTYPES[precision]) for size in sizes)
    flops = 4 * x.shape[0] * wide.numel()

    def rate(kind: MakeLinear) -> float:
        into, out = kind(wide, None), kind(narrow, None)
        return flops / _median(lambda: out(into(x))) / 1e9

    kinds: list[MakeLinear] = [Plain, *([one_dnn.OneDnnLinear] if one_dnn.works(x.dtype) else [])]
    return lambda: max(map(rate, kinds))


def _gemm_int8(precision: str) -> Callable[[], float]:
    """OpenVINO's: eight such layers, and nothing between them."""
    import torch

    from score.model.engines.openvino_conversion import model_of
    from score.model.engines.openvino_towers import compiled
    from score.model.engines.telemetry import no_telemetry

    with no_telemetry():
        import nncf

    layers = [torch.nn.Linear(768, 3072), torch.nn.Linear(3072, 768)] * 4
    x = torch.randn(BATCH * 50, 768)
    with torch.no_grad():
        model = model_of(torch.nn.Sequential(*layers), x)
    model = nncf.quantize(model, nncf.Dataset([x.numpy()]), subset_size=1)
    request = compiled(model, precision).create_infer_request()
    flops = 8 * 2 * x.shape[0] * 768 * 3072
    return lambda: flops / _median(lambda: request.infer([x.numpy()])) / 1e9


def _median(compute: Callable[[], object], times: int = 5) -> float:
    compute()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


# -- the turns -----------------------------------------------------------------------------------


def measure(
    workers: list[Worker],
    tasks: list[tuple[str, dict[str, Any], int]],
    turns: int,
    limits: dict[str, Callable[[], float]],
) -> Any:
    """Rows a second by task and contender, one value a turn; their peaks in bytes; the GEMMs'
    rates, measured in the turns of the model alone.
    """
    floors: dict[str, list[float]] = {precision: [] for precision in limits}
    rates: Results = {task: {worker.name: [] for worker in workers} for task, _, _ in tasks}
    peaks: dict[str, dict[str, float]] = {}
    for task, asked, rows in tasks:
        for worker in workers:
            worker.ask(**asked)  # warms up
        for _ in range(turns):
            if task == ALONE:
                for precision, limit in limits.items():
                    floors[precision].append(limit())
            for worker in workers:
                answer = worker.ask(**asked)
                rates[task][worker.name].append(rows / answer["seconds"])
                known = peaks.setdefault(worker.name, {})
                known[task] = max(known.get(task, 0), answer.get("peak", 0))
        shown = ", ".join(
            f"{name} {statistics.median(values):.1f}" for name, values in rates[task].items()
        )
        print(f"{task}: {shown} /s", flush=True)
    return rates, peaks, floors


def compare(workers: list[Worker], file: Path, folder: Path) -> dict[str, float]:
    """Least cosine of each contender's vectors to the first's."""
    vectors = []
    for worker in workers:
        target = folder / "vectors.npy"
        worker.ask(kind="rows", file=str(file), vectors=str(target))
        vectors.append(unit(np.load(target)))
    return {
        worker.name: float((vectors_of_one * vectors[0]).sum(1).min())
        for worker, vectors_of_one in zip(workers, vectors, strict=True)
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch, fixtures.image_server(LATENCY) as urls:
        folder = Path(scratch)
        model = fixtures.model(options.model, folder, int8=any("int8" in n for n in options.names))
        names = [*options.names, *([WRAPPER] if options.peer else [])]
        more = ["--peer", str(options.peer)] if options.peer else []
        for name in names:
            if "openvino" in name:  # compiles, if need be: what is measured is every later start
                Worker(name, model, more).stop()
        bare: dict[str, list[float]] = {name: [] for name in names if is_ours(name)}
        for _ in range(3):
            for name, seconds in bare.items():
                seconds.append(bare_start(name, model))
        workers = [Worker(name, model, more) for name in names]
        tasks: list[tuple[str, dict[str, Any], int]] = []
        cosines = {}
        for task, frame in frames(urls):
            file = folder / f"{len(tasks)}.parquet"
            frame.to_parquet(file)
            if task in options.tasks:
                cosines[task] = compare(workers, file, folder)
                tasks.append((task, {"kind": "rows", "file": str(file)}, len(frame)))
            if task == "base64, 640×480":
                tasks.append(("one image", {"kind": "one", "file": str(file)}, 1))
        tasks.append(("one image, model only", {"kind": "model", "count": 1}, 1))
        tasks.append((ALONE, {"kind": "model", "count": BATCH}, BATCH))
        rates, peaks, floors = measure(workers, tasks, options.turns, gemms(names))
        started = {worker.name: worker.started for worker in workers}
        for worker in workers:
            worker.stop()
        architecture = ModelFolder.open(model).architecture
        flops, saved = image_flops(architecture), _last_layer_flops(architecture)
    return {
        "machine": machine.described(),
        "rates": rates,
        "peaks": peaks,
        "cosines": cosines,
        "started": started,
        "started_bare": bare,
        "gemm_gflops": floors,
        "image_gflop": {name: (flops - saved * is_ours(name)) / 1e9 for name in names},
    }


def _last_layer_flops(architecture: Architecture) -> float:
    """The FLOPs saved by computing only the class token in the last layer."""
    tower, others = architecture.vision.tower, architecture.vision.tokens - 1
    if architecture.vision.pooling == "attention":
        return 0.0
    matrices = 2 * tower.width**2 + 2 * tower.width * tower.hidden
    return 2.0 * others * matrices + 4.0 * others * architecture.vision.tokens * tower.width


# -- the results ---------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """Markdown: a line for each task, a column for each contender."""
    rates: Results = results["rates"]
    names = list(next(iter(rates.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for task, by_contender in rates.items():
        cells = []
        for name in names:
            values = by_contender[name]
            cell = f"{statistics.median(values):.1f}/s ({min(values):.1f}–{max(values):.1f})"
            if name != names[0]:
                cell += f", **{_ratio(values, by_contender[names[0]]):.2f}×**"
            cells.append(cell)
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    floors, flops = results["gemm_gflops"], results["image_gflop"]
    shares = [
        _share(rates[ALONE][name], flops[name], floors.get(_precision(name))) for name in names
    ]
    lines.append("| model only, share of the GEMM rate | " + " | ".join(shares) + " |")
    for title, pick in (
        ("peak memory", lambda name: f"{max(results['peaks'][name].values()) / MIB:.0f} MiB"),
        ("process start to first vector", lambda n: f"{results['started'][n]['seconds']:.1f} s"),
        ("the same without MLflow", lambda n: _seconds(results["started_bare"].get(n))),
        (
            "least cosine",
            lambda name: f"{min(cosines[name] for cosines in results['cosines'].values()):.6f}",
        ),
    ):
        lines.append(f"| {title} | " + " | ".join(map(pick, names)) + " |")
    return "\n".join(lines) + "\n"


def _ratio(values: list[float], others: list[float]) -> float:
    """The median of the ratios, turn by turn."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def _seconds(times: list[float] | None) -> str:
    return f"{statistics.median(times):.1f} s" if times else ""


def _precision(name: str) -> str:
    return settings(name).get("precision", "fp32")


def _share(rates: list[float], gflop: float, floor: list[float] | None) -> str:
    """Of the bare multiplications' rate, turn by turn; nothing where that was not measured."""
    return f"{gflop * _ratio(rates, floor):.0%}" if floor else ""


def plot(results: dict[str, Any]) -> str:
    """SVG: how many times the first contender's rate the others have, task by task."""
    from score.evaluation.charts import bars

    rates: Results = results["rates"]
    names = list(next(iter(rates.values())))
    series = {
        name: [
            _ratio(by_contender[name], by_contender[names[0]]) for by_contender in rates.values()
        ]
        for name in names[1:]
    }
    return bars(list(rates), series, f"times the rate of {names[0]}")


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: a ViT-B/32 with random weights")
    parser.add_argument("--turns", type=int, default=5, help="default: 5")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument(
        "--with",
        nargs="+",
        dest="names",
        default=DEFAULT,
        metavar="NAME",
        help=f"default: {DEFAULT}",
    )
    parser.add_argument(
        "--peer", type=Path, help="a clone of Azure/azureml-assets: its wrapper, too"
    )
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    options = parser.parse_args()
    if options.turns < 1:
        parser.error("--turns must be 1 at least")
    for name in set(options.names) - {*DEFAULT, OPEN_CLIP}:
        if not is_ours(name) or len(name.split()) not in (3, 4):
            parser.error(
                f"--with {name!r} is none of {DEFAULT}, nor 'ours PRECISION ENGINE [fast]'"
            )
    results = run(options)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.output / "table.md").write_text(table(results), encoding="utf-8")
    if len(options.names) > 1:
        (options.output / "plot.svg").write_text(plot(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    commands.run(main)
