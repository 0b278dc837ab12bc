"""Those that a benchmark compares: each loads the same checkpoint in a process of its own.

    python -m benchmarks.contenders NAME MODEL     (started by `benchmarks.bench`)

A process reads tasks, one JSON object a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks import fixtures
from score.console import commands

with commands.required_imports(__name__):
    import pandas as pd

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = ("image_features", "text_features")
BASELINE = "transformers"
OPEN_CLIP = "open_clip"
WRAPPER = "Azure's wrapper"
Matrix = np.ndarray


class Contender(Protocol):
    """A loaded model: rows → vectors; and, for the model alone, prepared input → vectors."""

    def predict(self, frame: pd.DataFrame) -> Matrix: ...
    def images(self, count: int) -> Callable[[], object]: ...


# -- the parent's side ---------------------------------------------------------------------------


class Worker:
    """A contender's process."""

    def __init__(self, name: str, model: Path, more: list[str]) -> None:
        self.name = name
        command = [sys.executable, "-m", __spec__.name, name, str(model), *more]
        pipe = subprocess.PIPE
        began = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=_environment(name)
        )
        self.started = self._answer() | {"seconds": time.perf_counter() - began}

    def ask(self, **task: object) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended: {self.process.args!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self.process.communicate()


def _environment(name: str) -> dict[str, str]:
    """`MALLOC_ARENA_MAX`, which costs nobody time, as the images have it."""
    own = {f"SCORE_{key.upper()}": value for key, value in settings(name).items()}
    shared = {"SCORE_ALLOW_HOSTS": fixtures.HERE, "MALLOC_ARENA_MAX": "2"}
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", **shared, **own}


_FIRST = """
import os, sys
from score.core.embedder import Embedder
from score.settings import Settings
Embedder.load(sys.argv[1], Settings.from_env(os.environ)).embed_text("a photo of a cat")
print("done", flush=True)
"""


def bare_start(name: str, model: Path) -> float:
    """Seconds that a process takes to its first vector without MLflow, which `score embed` needs
    not, either.
    """
    command = [sys.executable, "-c", _FIRST, str(model)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment(name)) as process:
        assert process.stdout
        process.stdout.readline()
        return time.perf_counter() - began


def is_ours(name: str) -> bool:
    return name.startswith("ours")


def settings(name: str) -> dict[str, str]:
    """`ours fp32 openvino fast` → the settings that this says."""
    if not is_ours(name):
        return {}
    _, precision, engine, *more = name.split()
    return {"precision": precision, "engine": engine, "decoding": (more or ["exact"])[0]}


# -- the contenders ------------------------------------------------------------------------------


class Ours:
    def __init__(self, model: Path) -> None:
        from score.pyfunc import _load_pyfunc

        self._model = _load_pyfunc(str(model))

    def predict(self, frame: pd.DataFrame) -> Matrix:
        return _matrix(self._model.predict(frame))

    def images(self, count: int) -> Callable[[], object]:
        from score.core.embedder import parts_of

        encoder = parts_of(self._model.embedder).encoder
        side = encoder.architecture.vision.image
        pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        return lambda: encoder.images(list(pixels))


class Transformers:
    """What a user writes first, and Azure's wrapper does: the processor, all rows in one pass, with
    what gradients would need kept, and images fetched in turn.
    """

    padding: bool | str = True
    """Of texts: to the longest."""

    def __init__(self, model: Path) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        self._model = CLIPModel.from_pretrained(str(model), dtype="float32")
        self._processor = CLIPImageProcessorPil.from_pretrained(str(model))
        self._tokenizer = AutoTokenizer.from_pretrained(str(model))

    def predict(self, frame: pd.DataFrame) -> Matrix:
        if frame["image"].iloc[0]:
            images = [_opened(cell) for cell in frame["image"]]
            inputs = self._processor(images=images, return_tensors="pt")
            return self._encode_images(inputs["pixel_values"]).detach().numpy()
        inputs = self._tokenizer(
            list(frame["text"]),
            padding=self.padding,
            truncation=True,
            max_length=77,
            return_tensors="pt",
        )
        return self._encode_texts(inputs).detach().numpy()

    def images(self, count: int) -> Callable[[], object]:
        import torch

        side = self._processor.crop_size["height"]
        pixels = torch.randn(count, 3, side, side)
        return lambda: self._encode_images(pixels)

    def _encode_images(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self._model.get_image_features(pixel_values=pixels).pooler_output
        return vectors

    def _encode_texts(self, inputs: Mapping[str, Tensor]) -> Tensor:
        vectors: Tensor = self._model.get_text_features(**inputs).pooler_output
        return vectors


class OpenClip(Transformers):
    """open_clip's model, as its README has it: without gradients, texts padded to 77 tokens. Its
    preprocessing is torchvision's, which has no build for every machine: transformers' stands in.
    """

    padding = "max_length"

    def __init__(self, model: Path) -> None:
        from score.folder.model_folder import ModelFolder
        from tests.support.open_clip_reference import of_folder

        super().__init__(model)
        self._model = of_folder(ModelFolder.open(model))

    def _encode_images(self, pixels: Tensor) -> Tensor:
        import torch

        with torch.inference_mode():
            vectors: Tensor = self._model.encode_image(pixels)
        return vectors

    def _encode_texts(self, inputs: Mapping[str, Tensor]) -> Tensor:
        import torch

        with torch.inference_mode():
            vectors: Tensor = self._model.encode_text(inputs["input_ids"])
        return vectors


class Wrapper(Transformers):
    """Azure's wrapper from its checkout, unchanged but for what transformers 5 changed under it."""

    def __init__(self, model: Path, peer: Path) -> None:
        processors = peer / "assets/training/model_management/src/azureml/model/mgmt/processors"
        sys.path[:0] = [str(processors / "pyfunc" / "clip"), str(processors / "common")]
        from clip_embeddings_mlflow_wrapper import CLIPEmbeddingsMLFlowModelWrapper

        self._wrapper = CLIPEmbeddingsMLFlowModelWrapper("embeddings")
        self._context = SimpleNamespace(artifacts={"model_dir": str(model)})
        self._wrapper.load_context(self._context)
        self._model = self._wrapper._model
        # The wrapper was written for transformers 4, whose features were the tensor itself.
        for name in ("get_image_features", "get_text_features"):
            setattr(self._model, name, _tensor_of(getattr(self._model, name)))

    def predict(self, frame: pd.DataFrame) -> Matrix:
        return _matrix(self._wrapper.predict(self._context, frame).to_dict("records"))


def _tensor_of(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **inputs: method(**inputs).pooler_output


def _opened(cell: str) -> Any:
    import requests
    from PIL import Image

    url = cell.startswith("http")
    data = requests.get(cell).content if url else base64.b64decode(cell)
    return Image.open(io.BytesIO(data)).convert("RGB")


def _matrix(records: list[dict[str, Any]]) -> Matrix:
    return np.array(list(_vectors(records)), dtype=np.float32)


def _vectors(records: list[dict[str, Any]]) -> Iterator[list[float]]:
    for record in records:
        yield from (record[name] for name in FEATURES if record.get(name) is not None)


def load(name: str, model: Path, peer: Path | None) -> Contender:
    if name == BASELINE:
        return Transformers(model)
    if name == OPEN_CLIP:
        return OpenClip(model)
    if name == WRAPPER:
        assert peer
        return Wrapper(model, peer)
    return Ours(model)


# -- a worker's side -----------------------------------------------------------------------------


def work(contender: Contender, task: dict[str, Any]) -> dict[str, Any]:
    """rows: seconds for a frame, once. one: for single rows of it. model: for passes alone."""
    if task["kind"] == "model":
        compute = contender.images(task["count"])
        return {"seconds": _seconds(compute)}
    frame = pd.read_parquet(task["file"])
    if task["kind"] == "one":
        return {"seconds": _seconds(lambda: contender.predict(frame.iloc[:1]))}
    _forget_peak()
    began = time.perf_counter()
    vectors = contender.predict(frame)
    seconds = time.perf_counter() - began
    if "vectors" in task:
        np.save(task["vectors"], vectors)
    return {"seconds": seconds, "peak": _peak()}


def _seconds(compute: Callable[[], object]) -> float:
    """Of one call; once before, to be warm."""
    compute()
    began = time.perf_counter()
    compute()
    return time.perf_counter() - began


def _forget_peak() -> None:
    """Linux: the peak begins anew at what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Linux: most bytes resident at a time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = commands.Parser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", type=Path)
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers
        began = time.perf_counter()
        contender = load(options.name, options.model, options.peer)
        loaded = time.perf_counter() - began
        contender.predict(pd.DataFrame({"image": [""], "text": ["a photo of a cat"]}))
        first = time.perf_counter() - began
    print(json.dumps({"load": loaded, "first": first}), flush=True)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            answer = work(contender, json.loads(line))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    commands.run(main)
