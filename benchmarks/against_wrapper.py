"""Rows a second and peak memory, ours against Azure's published CLIP wrapper.

    python -m benchmarks.against_wrapper --peer CHECKOUT

CHECKOUT is a clone of https://github.com/Azure/azureml-assets. Each model is an MLflow model of the
same checkpoint, asked through `predict(frame)` in a process of its own. They take turns, so that
whatever else the machine does hits all of them. Their vectors are compared first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import material

MIB = 2**20
FEATURES = ("image_features", "text_features")
THEIRS = "wrapper fp32"
Predict = Callable[[pd.DataFrame], Any]


# -- the parent: asks both in turn ---------------------------------------------------------------


class Worker:
    """A model in a process of its own, asked by lines of JSON."""

    def __init__(self, kind: str, model: Path, peer: Path) -> None:
        command = [sys.executable, "-m", __spec__.name, "--worker", kind]
        command += ["--model", str(model), "--peer", str(peer)]
        settings = {"SCORE_ALLOW_HOSTS": material.HERE, "SCORE_PRECISION": kind.split()[-1]}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings, "CUDA_VISIBLE_DEVICES": ""},
        )
        self._answer()

    def ask(self, file: Path) -> dict[str, float]:
        assert self.process.stdin
        self.process.stdin.write(f"{file}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended: {self.process.args}")
        return json.loads(line)

    def stop(self) -> None:
        self.process.communicate()


def frames(rows: int, urls: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    pictures = material.pictures(material.SMALL + material.LARGER)
    inline = [material.in_base64(picture) for picture in pictures]
    for where, cells in (("URL", urls), ("base64", inline)):
        yield f"{where}, 640×480", pd.DataFrame({"image": material.small(cells, rows), "text": ""})
        yield f"{where}, mixed", pd.DataFrame({"image": material.mixed(cells, rows), "text": ""})
    yield "texts", pd.DataFrame({"image": "", "text": material.texts(4 * rows)})


def compare(ours: Path, theirs: Path) -> str:
    mine, peers = np.load(ours), np.load(theirs)
    cosine = (mine * peers).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(peers, axis=1)
    error = (np.abs(mine - peers).max(1) / np.abs(peers).max(1)).max()
    if cosine.min() < 0.999:
        raise SystemExit(f"the vectors differ: cosine {cosine.min()}")
    return f"cosine ≥ {cosine.min():.6f}, largest relative difference {error:.0e}"


def benchmark(workers: dict[str, Worker], file: Path, turns: int) -> None:
    rows = len(pd.read_parquet(file))
    rates: dict[str, list[float]] = {name: [] for name in workers}
    peaks = dict.fromkeys(workers, 0.0)
    for _ in range(turns):
        for name, worker in workers.items():
            answer = worker.ask(file)
            rates[name].append(rows / answer["seconds"])
            peaks[name] = max(peaks[name], answer["peak"])
    for name in workers:
        ratios = [ours / theirs for ours, theirs in zip(rates[name], rates[THEIRS], strict=True)]
        print(
            f"  {name:12} {statistics.median(rates[name]):6.1f} rows/s "
            f"({min(rates[name]):.1f}–{max(rates[name]):.1f}), "
            f"{statistics.median(ratios):.2f}× the wrapper turn by turn, "
            f"peak {peaks[name] / MIB:5.0f} MiB",
            flush=True,
        )


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch, material.picture_server(0.05) as urls:
        folder = Path(scratch)
        model = material.model(options.model, folder)
        ours = [f"ours {precision}" for precision in options.precision]
        workers = {name: Worker(name, model, options.peer) for name in (THEIRS, *ours)}
        for task, frame in frames(options.rows, urls):
            file = folder / "rows.parquet"
            frame.to_parquet(file)
            for worker in workers.values():
                worker.ask(file)  # warms up, and leaves its vectors beside the file
            load = os.getloadavg()[0]
            print(f"{task}: {len(frame)} a call, {options.turns} turns, load {load:.1f}")
            for name in ours:
                same = compare(*(file.with_suffix(f".{kind}.npy") for kind in (name, THEIRS)))
                print(f"  {name}: {same}", flush=True)
            benchmark(workers, file, options.turns)
        for worker in workers.values():
            worker.stop()


# -- a worker: loads one of the two models, and answers ------------------------------------------


def load_ours(model: Path) -> Predict:
    from score.pyfunc import _load_pyfunc

    loaded = _load_pyfunc(str(model))
    return lambda frame: loaded.predict(frame)


def load_theirs(model: Path, peer: Path) -> Predict:
    """The wrapper from its checkout, unchanged but for what transformers 5 changed under it."""
    processors = peer / "assets/training/model_management/src/azureml/model/mgmt/processors"
    sys.path[:0] = [str(processors / "pyfunc" / "clip"), str(processors / "common")]
    from clip_embeddings_mlflow_wrapper import CLIPEmbeddingsMLFlowModelWrapper

    wrapper = CLIPEmbeddingsMLFlowModelWrapper("embeddings")
    context = SimpleNamespace(artifacts={"model_dir": str(model)})
    wrapper.load_context(context)
    # The wrapper was written for transformers 4, whose features were the tensor itself.
    for name in ("get_image_features", "get_text_features"):
        setattr(wrapper._model, name, _tensor_of(getattr(wrapper._model, name)))
    return lambda frame: wrapper.predict(context, frame)


def _tensor_of(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **inputs: method(**inputs).pooler_output


def work(options: argparse.Namespace) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers
        wrapper = options.worker == THEIRS
        loaded = load_theirs(options.model, options.peer) if wrapper else load_ours(options.model)
    print("{}", flush=True)
    for line in sys.stdin:
        file = Path(line.rstrip("\n"))
        frame = pd.read_parquet(file)
        _forget_peak()
        began = time.perf_counter()
        answer = loaded(frame)
        seconds = time.perf_counter() - began
        peak = _peak()
        np.save(file.with_suffix(f".{options.worker}.npy"), np.array(list(_vectors(answer))))
        print(json.dumps({"seconds": seconds, "peak": peak}), flush=True)


def _vectors(answer: pd.DataFrame | list[dict[str, Any]]) -> Iterator[list[float]]:
    records = answer.to_dict("records") if isinstance(answer, pd.DataFrame) else answer
    for record in records:
        yield from (record[name] for name in FEATURES if name in record)


def _forget_peak() -> None:
    """Linux: the peak begins anew at what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Linux: most bytes resident at a time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", type=Path, required=True, help="a clone of Azure/azureml-assets")
    parser.add_argument("--model", type=Path, help="default: a random ViT-B/32")
    parser.add_argument(
        "--rows", type=int, default=64, help="pictures a call; four times the texts"
    )
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--precision", nargs="+", default=["fp32"], help="ours; theirs is fp32")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    work(given) if given.worker else main(given)
