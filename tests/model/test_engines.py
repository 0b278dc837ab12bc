"""Engines compute one another's vectors; `auto` takes what is right; int8 is measured first."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from score.__main__ import main
from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import CHINESE_ARCHITECTURES, SIGLIP_ARCHITECTURES
from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.folder.architecture import Transformer
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.folder.weights import Weights
from score.hardware import processor
from score.model import precision
from score.model.encoder import Encoder
from score.model.engines import one_dnn, openvino, openvino_cache, openvino_towers, pytorch
from score.model.engines.pytorch import PyTorch
from score.model.probes import Probes, difference
from score.model.zeroshot import cosine
from score.package import int8
from score.package.build import package
from score.settings import Settings
from score.texts.packing import packed
from tests.support.damage import cut, empty, flip
from tests.support.images import SAMPLES
from tests.support.surfaces import ROOT

SHEET = ROOT / "tests/data/held_out.jpg"
TORCH = Settings(device="cpu", precision="fp32", engine="torch", verify="off")
OPENVINO = replace(TORCH, engine="openvino")
INT8 = ("--precision", "int8", "--engine", "auto")
TEXTS = ["a cat", "", "a photo of a dog " * 30, "ein Fahrrad an einer Straße", "x " * 20]
KEPT = ["facts.json", "images.blob", "sums.json", "texts.blob"]
PHOTOS = sorted((SAMPLES / "photos").glob("*.jpg"))


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of this module's own, where models are converted to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


def made(kind: str, folder: Path) -> Path:
    tiny = random_checkpoint.TINY
    if kind == "largest id":
        return random_checkpoint.write(folder, replace(tiny, text=replace(tiny.text, end=2)))
    if kind == "gelu":
        tower = Transformer(64, 2, 2, 256, "gelu")
        vision, text = replace(tiny.vision, tower=tower), replace(tiny.text, tower=tower)
        return random_checkpoint.write(folder, replace(tiny, vision=vision, text=text))
    if kind == "metaclip_2":
        text = replace(tiny.text, vocabulary=1000, begin=0, end=2, pad=1)
        return random_checkpoint.write(folder, replace(tiny, kind="metaclip_2", text=text))
    if kind == "siglip":
        tower = Transformer(64, 2, 2, 256, "gelu_pytorch_tanh", 1e-6)
        base = SIGLIP_ARCHITECTURES["ViT-B-16-SigLIP-224"]
        vision = replace(base.vision, tower=tower, patch=32)
        text = replace(base.text, tower=tower, vocabulary=1000)
        siglip = replace(base, dimension=64, vision=vision, text=text)
        return random_checkpoint.write(folder, siglip)
    if kind == "chinese_clip":
        base = CHINESE_ARCHITECTURES["chinese-ViT-B-16"]
        text = replace(base.text, tower=Transformer(64, 2, 2, 256, "gelu", 1e-12))
        return random_checkpoint.write(folder, replace(base, vision=tiny.vision, text=text))
    return random_checkpoint.write(folder, tiny)


def encoder_of(model: Path, settings: Settings) -> Encoder:
    return parts_of(Embedder.load(model, settings)).encoder


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["clip", "largest id", "gelu", "metaclip_2", "siglip", "chinese_clip"]
)
def test_openvino_computes_pytorchs_vectors(kind: str, tmp_path: Path) -> None:
    model = made(kind, tmp_path / "c")
    ours, theirs = (encoder_of(model, settings) for settings in (OPENVINO, TORCH))
    assert (ours.engine.precision, ours.engine.device) == ("fp32", "cpu")
    assert ours.logit_scale == theirs.logit_scale
    assert ours.logit_bias == theirs.logit_bias
    assert (ours.logit_bias is None) == (kind != "siglip")
    cosine, error = difference(vectors_of(model, OPENVINO), vectors_of(model, TORCH))
    assert (cosine > 0.999999, error < 1e-5) == (True, True)


def vectors_of(model: Path, settings: Settings) -> np.ndarray:
    rows = [Row(image=file.read_bytes()) for file in PHOTOS]
    rows += [Row(text=text or "?") for text in TEXTS]
    records = list(Embedder.load(model, settings).embed(rows))
    vectors = [record.image_features for record in records[: len(PHOTOS)]]
    vectors += [record.text_features for record in records[len(PHOTOS) :]]
    return np.stack(vectors)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["clip", "gelu", "siglip", "chinese_clip"])
def test_weights_in_blocks_compute_the_same(
    kind: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not one_dnn.works(pytorch.DTYPES[dtype]):
        pytest.skip(f"this PyTorch has no oneDNN that computes {dtype} here")
    model = made(kind, tmp_path / "c")
    settings = replace(TORCH, precision=dtype)
    plain = vectors_of(model, settings)
    used = []

    class Counted(one_dnn.OneDnnLinear):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            used.append(x.shape)
            return super().__call__(x)

    monkeypatch.setattr(pytorch, "pays", lambda *_: True)
    monkeypatch.setattr(pytorch, "OneDnnLinear", Counted)
    cosine, error = difference(vectors_of(model, settings), plain)
    bounds = {"fp32": (0.999999, 1e-5), "bf16": (0.9999, 0.02)}[dtype]
    assert (cosine > bounds[0], error < bounds[1]) == (True, True)
    assert used
    with pytest.raises(TypeError, match="cannot be taken apart"):
        PyTorch.load(ModelFolder.open(model), settings).modules()
    # What OpenVINO converts is plain.
    cosine, error = difference(
        vectors_of(model, replace(OPENVINO, cache=str(tmp_path))), vectors_of(model, TORCH)
    )
    assert (cosine > 0.999999, error < 1e-5) == (True, True)


@pytest.mark.parametrize("fits", [True, False])
def test_an_engine_for_which_shapes_are_dear_sees_few(
    fits: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(tiny, TORCH)
    monkeypatch.setattr(encoder.engine, "new_shapes_are_costly", fits)
    seen = set()
    for kind in ("images", "texts"):
        compute = getattr(encoder.engine, kind)

        def counted(inputs: Any, compute: Any = compute) -> Any:
            seen.add(len(inputs) if isinstance(inputs, list) else inputs.ids.shape)
            return compute(inputs)

        monkeypatch.setattr(encoder.engine, kind, counted)
    pixels = np.zeros((224, 224, 3), np.uint8)
    alone = encoder.images([pixels])
    for count in range(1, 20):
        vectors = encoder.images([pixels] * count)
        assert difference(vectors, np.repeat(alone, count, axis=0))[1] < 1e-5
    for length in range(1, 40):
        encoder.texts([[1] * (length - 1) + [encoder.architecture.text.end]])
    assert len(seen) == (5 + 3 if fits else 19 + 39)


@pytest.mark.parametrize(
    ("maker", "flags", "precisions"),
    [
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", {"fp32", "bf16"}),
        ("AuthenticAMD", "avx2", set()),
        ("GenuineIntel", "avx512f amx_bf16", {"bf16"}),
        ("GenuineIntel", "avx512f", set()),
    ],
)
def test_weights_are_in_blocks_where_that_is_faster(
    maker: str,
    flags: str,
    precisions: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {maker}\nflags\t\t: {flags}\n")
    monkeypatch.setattr(one_dnn, "works", lambda dtype: dtype != torch.float16)
    where = {
        name for name, dtype in pytorch.DTYPES.items() if one_dnn.pays(torch.device("cpu"), dtype)
    }
    assert where == precisions
    assert not one_dnn.pays(torch.device("cuda"), torch.bfloat16)


@pytest.mark.slow
def test_any_number_of_images_and_threads(tiny: Path) -> None:
    ours, theirs = (encoder_of(tiny, settings) for settings in (OPENVINO, TORCH))
    noise = np.random.default_rng(0)
    pixels = noise.integers(0, 256, (70, 224, 224, 3), dtype=np.uint8)
    for count in (1, 33, 2, 70):
        assert difference(ours.images(pixels[:count]), theirs.images(pixels[:count]))[1] < 1e-5
    assert ours.images([]).shape == (0, 512)
    with ThreadPoolExecutor(4) as threads:
        several = list(threads.map(lambda i: ours.images(pixels[i : i + 1]), range(20)))
    assert difference(np.concatenate(several), theirs.images(pixels[:20]))[1] < 1e-5
    first = ours.images(pixels[:1])
    kept = first.copy()
    ours.images(pixels[1:2])
    assert np.array_equal(first, kept)  # an answer is nobody else's memory


CODE = """
import sys
from score.core.embedder import Embedder
from score.settings import Settings
embedder = Embedder.load(sys.argv[1], Settings(engine="openvino", device="cpu", cache=sys.argv[2]))
print(embedder.embed_text("a cat")[0], "torch" in sys.modules)
"""


@pytest.mark.process
def test_what_was_converted_once_needs_no_pytorch(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, str(tiny), str(tmp_path)]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    both = [start(), start()]  # at once: one's towers are kept
    answers = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    again = start().communicate()[0].split()
    assert [float(answer[0]) for answer in answers] == [float(again[0])] * 2
    assert again[1] == "False"
    (kept,) = (tmp_path / "engines").iterdir()
    assert sorted(file.name for file in kept.iterdir()) == KEPT


def test_a_trace_holds_no_weights(tiny: Path) -> None:
    """PyTorch never lets go of one."""
    engine = PyTorch.load(ModelFolder.open(tiny), TORCH, plain=True)
    ((texts, _),) = packed([[3, 2, 1]] * 40)
    inputs = ((torch.zeros(2, 224, 224, 3, dtype=torch.uint8),), map(torch.from_numpy, texts))
    for (module,), example in zip(engine.modules(), inputs, strict=True):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = torch.jit.trace(module, tuple(example)).inlined_graph
        constants = [node.output().toIValue() for node in graph.findAllNodes("prim::Constant")]
        tensors = [value for value in constants if isinstance(value, torch.Tensor)]
        assert sum(tensor.numel() for tensor in tensors) < 1000


@pytest.mark.slow
def test_other_weights_are_another_model(tmp_path: Path) -> None:
    one = random_checkpoint.write(tmp_path / "one", random_checkpoint.TINY, seed=1)
    before = Embedder.load(one, OPENVINO).embed_text("a cat")
    state = load_file(one / "model.safetensors")
    state["text_model.final_layer_norm.bias"][3] += 1  # one number, somewhere
    save_file(state, one / "model.safetensors")
    assert not np.allclose(Embedder.load(one, OPENVINO).embed_text("a cat"), before)


@pytest.fixture(scope="module")
def converted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A cache that holds the tiny model, not to be changed, and a vector of it."""
    cache = tmp_path_factory.mktemp("converted")
    settings = replace(OPENVINO, cache=str(cache))
    return cache, Embedder.load(tiny, settings).embed_text("a cat")


# Every harm to every file: tests/storage/test_cache.py.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (cut, "sums.json"),
        (flip, "images.blob"),
        (Path.unlink, "facts.json"),
        (empty, "texts.blob"),
    ],
)
def test_a_damaged_cache_is_made_anew(
    harm: Callable[[Path], object],
    name: str,
    tiny: Path,
    converted: tuple[Path, np.ndarray],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache, vector = converted
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    settings = replace(OPENVINO, cache=str(tmp_path))
    (kept,) = (tmp_path / "engines").iterdir()
    harm(kept / name)
    harmed = kept.stat().st_mtime_ns
    assert np.array_equal(Embedder.load(tiny, settings).embed_text("a cat"), vector)
    assert [file.name for file in (tmp_path / "engines").iterdir()] == [kept.name]
    assert sorted(file.name for file in kept.iterdir()) == KEPT
    assert kept.stat().st_mtime_ns != harmed
    assert f"{kept} is damaged; creating it again" in caplog.text


@pytest.mark.slow
def test_a_whole_cache_that_does_not_load_is_made_anew(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(OPENVINO, cache=str(tmp_path))
    vector = Embedder.load(tiny, settings).embed_text("a cat")

    def refused(*_: object) -> None:
        raise RuntimeError("of another OpenVINO")

    with monkeypatch.context() as patch:
        patch.setattr(openvino_towers, "_imported", refused)
        assert np.array_equal(Embedder.load(tiny, settings).embed_text("a cat"), vector)
    assert f"the cache {tmp_path} cannot be used: of another OpenVINO" in caplog.text
    assert list((tmp_path / "engines").iterdir()) == []
    Embedder.load(tiny, settings)
    assert len(list((tmp_path / "engines").iterdir())) == 1


def test_the_key_follows_each_module_that_it_names(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ModelFolder.open(tiny)
    names = (*openvino_cache.COMPILING, *openvino_cache.TRACING)
    assert all(importlib.util.find_spec(name) for name in names)
    before = openvino_cache.key(folder, "fp32")
    assert openvino_cache.key(folder, "fp32") == before
    for name in names:
        spec = importlib.util.find_spec(name)
        changed = tmp_path / f"{name}.py"
        changed.write_bytes(Path(spec.origin).read_bytes() + b"# changed")
        spec.origin = str(changed)
        with monkeypatch.context() as patch:
            find = importlib.util.find_spec
            patch.setattr(
                openvino_cache, "find_spec", lambda n, s=spec, f=find: s if n == s.name else f(n)
            )
            assert openvino_cache.key(folder, "fp32") != before, name


@pytest.mark.process
def test_the_key_is_the_same_where_the_code_is_in_a_zip(tiny: Path, tmp_path: Path) -> None:
    """As Spark sends it to its workers."""
    package = tmp_path / "code.zip"
    with zipfile.ZipFile(package, "w") as archive:
        for file in (ROOT / "score").rglob("*.py"):
            archive.write(file, file.relative_to(ROOT))
    code = (
        "import sys, score; from pathlib import Path\n"
        "from score.folder.model_folder import ModelFolder\n"
        "from score.model.engines import openvino_cache\n"
        "print(score.__file__)\n"
        "print(openvino_cache.key(ModelFolder.open(Path(sys.argv[1])), 'fp32'))"
    )

    def key(path: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tiny)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.startswith(str(path)), done.stderr
        return done.stdout.splitlines()[-1]

    assert key(package) == key(ROOT)


def test_the_key_names_all_that_traces_and_compiles() -> None:
    """Each module of the project that the named ones import is named, or cannot matter."""
    named = {*openvino_cache.COMPILING, *openvino_cache.TRACING}
    harmless = {  # in the key by value, or without influence on what is compiled
        "score.type_aliases",  # names of types
        "score.concurrency.forks",
        "score.errors",
        "score.folder.architecture",
        "score.folder.model_folder",
        "score.folder.small_files",
        "score.folder.weights",
        "score.hardware.drivers",
        "score.hardware.gpus",
        "score.hardware.processor",
        "score.images.preprocess",  # its normalisation is in the key by value
        "score.model.engines.base",  # sizes of passes, whose shapes are free in what is compiled
        "score.model.engines.cuda_graphs",
        "score.model.engines.passes",
        "score.model.engines.telemetry",
        "score.model.engines.one_dnn",  # not in towers loaded `plain`, as for a conversion
        "score.settings",
        "score.storage.atomic",
        "score.storage.cache",
        "score.storage.digest",
        "score.texts.tokenizer",
    }
    used = set()
    for name in named:
        tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("score."):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                modules = [module for module in inner if (ROOT / module_file(module)).is_file()]
                used |= set(modules or [node.module])
    assert used - named == harmless


def module_file(module: str) -> str:
    return module.replace(".", "/") + ".py"


@pytest.mark.parametrize("listed", ["COMPILING", "TRACING"])
@pytest.mark.parametrize("gone", ["score.model.gone", "score.gone.towers"])
def test_a_module_that_is_gone_is_no_unusable_cache(
    listed: str, gone: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_cache, listed, (gone,))
    with pytest.raises(ModuleNotFoundError, match="gone"):
        openvino.load(ModelFolder.open(tiny), replace(OPENVINO, cache=str(tmp_path)))


@pytest.mark.slow
def test_what_killed_processes_began_is_removed(tiny: Path, tmp_path: Path) -> None:
    old, new = ".x.0123abcd-1-00000000.part", ".x.0123abcd-1-11111111.part"  # another machine's
    for name, age in ((old, 25 * 3600), (new, 3600)):
        (tmp_path / "engines" / name).mkdir(parents=True)
        then = time.time() - age
        os.utime(tmp_path / "engines" / name, (then, then))
    Embedder.load(tiny, replace(OPENVINO, cache=str(tmp_path)))
    hidden = [file.name for file in (tmp_path / "engines").iterdir() if file.name[0] == "."]
    assert hidden == [new]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_done_without(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    embedder = Embedder.load(tiny, replace(OPENVINO, cache=str(tmp_path / "file")))
    assert f"compiles anew, as every start will while the cache {tmp_path / 'file'}" in caplog.text
    vector = Embedder.load(tiny, OPENVINO).embed_text("a cat")
    assert np.array_equal(embedder.embed_text("a cat"), vector)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": "openvino", "precision": "fp16"}, "OpenVINO computes in fp32, bf16, int8"),
        ({"engine": "openvino", "device": "cuda"}, "on the CPU, not on 'cuda'"),
        ({"engine": "torch", "precision": "int8"}, "PyTorch computes in fp32, bf16, fp16"),
        ({"engine": "auto", "precision": "int8"}, "has no int8: `score package"),
    ],
)
def test_what_an_engine_cannot_is_told(changes: dict[str, str], said: str, tiny: Path) -> None:
    with pytest.raises(ModelError, match=said):
        Embedder.load(tiny, replace(TORCH, **changes))


def test_an_engine_that_is_not_installed_is_told(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "score.model.engines.openvino", None)
    monkeypatch.delattr("score.model.engines.openvino")
    with pytest.raises(ModelError, match=r"cannot be imported .*: pip install"):
        Embedder.load(tiny, OPENVINO)


class Short(io.FileIO):
    """A file of which one call reads little, as one of Linux's reads no more than 2 GiB."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:1000]) or 0


def test_weights_are_read_whole_however_little_one_call_reads(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load_file(tiny / "model.safetensors")
    weights = Weights.open(tiny)

    def short(path: Path, mode: str, buffering: int = -1) -> Any:
        return io.BufferedReader(Short(path)) if buffering else Short(path)

    monkeypatch.setattr(Path, "open", short)
    for name in weights.names():
        assert weights.read(name).equal(wanted[name])


def test_weights_that_shrink_are_told(tmp_path: Path) -> None:
    model = random_checkpoint.write(tmp_path / "model", random_checkpoint.TINY)
    weights = Weights.open(model)
    os.truncate(model / "model.safetensors", 100_000)
    with pytest.raises(ModelError, match="ends before the end of"):
        for name in weights.names():
            weights.read(name)


# -- precision -----------------------------------------------------------------------------------


def rounded(vectors: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(vectors).to(dtype).float().numpy()


def of_each_kind(engine: Any) -> dict[str, np.ndarray]:
    """An engine's vectors of noise and of texts."""
    noise = np.random.default_rng(0)
    side = ModelFolder.open(EMBEDDED).architecture.vision.image
    ((texts, _),) = packed([[1, number, 2] for number in range(300, 308)])
    pixels = noise.integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    return {"images": engine.images(pixels), "texts": engine.texts(texts)[0, :8]}


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("plain", [True, False])
def test_half_precision_does_not_round_vectors(name: str, plain: bool) -> None:
    folder = ModelFolder.open(EMBEDDED)
    exact = of_each_kind(PyTorch.load(folder, TORCH))
    found = of_each_kind(PyTorch.load(folder, replace(TORCH, precision=name), plain=plain))
    for kind, vectors in found.items():
        assert vectors.dtype == np.float32
        short = rounded(vectors, pytorch.DTYPES[name])
        assert (short == vectors).mean() < 0.01
        # What rounding adds to the layers' own error is not there.
        errors = [np.square(some - exact[kind]).mean() for some in (vectors, short)]
        assert 0 < errors[0] < errors[1]


def test_the_head_is_in_fp32_whatever_its_weights_are_stored_in(tmp_path: Path) -> None:
    """As on a GPU, where half precision overflows in a norm of large numbers."""
    model = random_checkpoint.write(tmp_path / "half", random_checkpoint.TINY, precision="bf16")
    for name, dtype in pytorch.DTYPES.items():
        engine = PyTorch.load(ModelFolder.open(model), replace(TORCH, precision=name))
        for tower in (engine._images, engine._texts):
            width = tower.head._projection.shape[1]
            large = torch.full((2, 3, width), 6e4).mul(torch.linspace(-1, 1, width)).to(dtype)
            vectors = tower.head(large)
            assert (vectors.dtype, vectors.shape) == (torch.float32, (2, 3, 512))
            assert torch.equal(vectors, tower.head(large.float()))
            assert vectors.isfinite().all()


@pytest.mark.slow
def test_openvinos_bf16_does_not_round_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO computes in fp32 where a CPU has no bf16: here its models' results are rounded."""
    folder = ModelFolder.open(EMBEDDED)
    asked = []

    class Rounding:
        """A compiled model of which all results are of the precision of its hint."""

        def __init__(self, model: Any, precision: str) -> None:
            asked.append(precision)
            self.model = compiled(model, precision)
            self.short = precision == "bf16"

        def create_infer_request(self) -> Rounding:
            self.request = self.model.create_infer_request()
            return self

        def infer(self, inputs: Any, share_inputs: bool) -> dict[int, np.ndarray]:
            (result,) = self.request.infer(inputs, share_inputs=share_inputs).values()
            return {0: rounded(result, torch.bfloat16) if self.short else result}

    compiled = openvino_towers.compiled
    monkeypatch.setattr(openvino_towers, "compiled", Rounding)
    towers = openvino_towers.Towers.of_pytorch(folder, OPENVINO, "bf16")
    assert asked == ["bf16", "fp32"] * 2
    exact = of_each_kind(PyTorch.load(folder, TORCH))
    for kind, vectors in of_each_kind(openvino.OpenVINO(towers, "bf16")).items():
        assert (rounded(vectors, torch.bfloat16) == vectors).mean() < 0.01
        cosine, error = difference(vectors, exact[kind])
        assert (cosine > 0.999, error < 0.03) == (True, True)


@pytest.mark.slow
def test_openvinos_bf16_is_kept_with_its_heads(tmp_path: Path) -> None:
    settings = replace(OPENVINO, precision="bf16", cache=str(tmp_path))
    first, again = (of_each_kind(encoder_of(EMBEDDED, settings).engine) for _ in "12")
    exact = of_each_kind(PyTorch.load(ModelFolder.open(EMBEDDED), TORCH))
    for kind, vectors in first.items():
        assert np.array_equal(again[kind], vectors)
        assert (rounded(vectors, torch.bfloat16) == vectors).mean() < 0.01
        assert difference(vectors, exact[kind])[0] > 0.999
    (kept,) = (tmp_path / "engines").iterdir()
    heads = ["images.head.blob", "texts.head.blob"]
    assert sorted(file.name for file in kept.iterdir()) == sorted([*KEPT, *heads])
    (kept / heads[0]).unlink()  # half a model is none
    assert np.array_equal(
        of_each_kind(encoder_of(EMBEDDED, settings).engine)["images"],
        first["images"],
    )


@pytest.mark.parametrize(("least", "taken"), [(0.9, "bf16"), (1.1, "fp32")])
def test_auto_takes_the_fastest_that_is_right(
    least: float, taken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "supports", lambda _: True)
    monkeypatch.setattr(precision, "LEAST_COSINE", least)
    caplog.set_level(logging.INFO)
    embedder = Embedder.load(settings=Settings(device="cpu"))
    assert embedder.precision == taken
    assert f"precision auto: {'' if taken == 'bf16' else 'not '}bf16" in caplog.text


def test_auto_survives_a_precision_that_crashes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(precision, "supports", lambda _: True)
    monkeypatch.setattr(precision, "_proven", load)
    caplog.set_level(logging.INFO)
    embedder = Embedder.load(settings=Settings(device="cpu"))
    assert embedder.precision == "fp32"
    assert "not bf16: CUDA out of memory" in caplog.text


def test_auto_is_fp32_without_a_proof_or_without_bf16(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "supports", lambda _: True)
    assert Embedder.load(tiny, Settings(device="cpu")).precision == "fp32"
    monkeypatch.setattr(precision, "supports", lambda _: False)
    assert Embedder.load(settings=Settings(device="cpu")).precision == "fp32"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t: fpu avx512f avx512_bf16 sse\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t: fpu avx512f avx512_vnni\n", False),
        ("", False),
    ],
)
def test_bf16_is_what_the_processor_says(
    text: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert not processor.supports("bf16")
    (tmp_path / "cpuinfo").write_text(text)
    assert processor.supports("bf16") is has


def test_a_precision_that_the_processor_only_emulates_is_told(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags\t: fpu avx2\n")
    Embedder.load(tiny, replace(TORCH, precision="fp32"))
    assert "by itself" not in caplog.text
    Embedder.load(tiny, replace(TORCH, precision="bf16"))
    assert "this CPU does not compute bf16 by itself; fp32 is likely no slower" in caplog.text


# -- int8 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out images of the embedded model's, and one file that is none."""
    folder = tmp_path_factory.mktemp("seen")
    sheet = Image.open(SHEET)
    for number in range(196):
        left, top = number % 14 * 112, number // 14 * 112
        sheet.crop((left, top, left + 112, top + 112)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def quantised(seen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the embedded model, with int8."""
    output = tmp_path_factory.mktemp("int8") / "package"
    command = [sys.executable, "-m", "score", "package", str(EMBEDDED), "--output", str(output)]
    command += ["--int8", str(seen), "--force"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{output}\n"  # and nothing of NNCF's
    assert "score: int8 against fp32 on 196 images" in done.stderr
    return output


@pytest.mark.process
def test_int8_finds_nearly_what_fp32_finds(quantised: Path, seen: Path) -> None:
    told = json.loads((quantised / "model/int8/agreement.json").read_text())
    assert told["images"] == 196
    assert told["top10"] > 0.95
    files = sorted(seen.glob("[0-9]*.png"))[:50]
    rows = [Row(image=file.read_bytes()) for file in files]
    vectors = []
    for settings in (TORCH, replace(TORCH, precision="int8", engine="auto", verify="quick")):
        embedder = Embedder.load(quantised, settings)
        vectors.append(np.stack([record.image_features for record in embedder.embed(rows)]))
    assert embedder.precision == "int8"
    assert difference(*vectors)[0] > 0.98
    assert not np.allclose(*vectors, rtol=1e-4)  # it is another arithmetic


@pytest.mark.process
def test_int8_leaves_the_projection_in_fp32(quantised: Path) -> None:
    for name in (openvino_towers.IMAGES, openvino_towers.TEXTS):
        tower = openvino_towers._CORE.read_model(quantised / "model/int8" / name)
        layers = int8._linear_layers(tower)
        assert list(layers.values())[-1][0] == 512  # the vectors' dimension
        quantised_inputs = [
            node.input_value(0).get_node().get_type_name() == "FakeQuantize"
            for node in tower.get_ordered_ops()
            if node.get_friendly_name() in layers
        ]
        assert not quantised_inputs[-1]
        assert sum(quantised_inputs) > len(layers) / 2


@pytest.mark.slow
def test_int8_of_a_siglip_leaves_its_head_in_fp32(seen: Path, tmp_path: Path) -> None:
    model = made("siglip", tmp_path / "c")
    few = tmp_path / "few"
    few.mkdir()
    for number in range(50):
        shutil.copy(seen / f"{number}.png", few)
    told = int8.quantise(model, few, force=True, whole=True)
    assert (told.images, told.image_cosine > 0.98, told.text_cosine > 0.98) == (50, True, True)
    settings = replace(TORCH, precision="int8", engine="auto")
    encoder = encoder_of(model, settings)
    assert (encoder.engine.precision, encoder.engine.name) == ("int8", "openvino")
    assert encoder.logit_bias == encoder_of(model, TORCH).logit_bias
    assert difference(vectors_of(model, settings), vectors_of(model, TORCH))[0] > 0.98
    tower = openvino_towers._CORE.read_model(model / "int8" / openvino_towers.IMAGES)
    quantised = [
        node.input_value(0).get_node().get_type_name() == "FakeQuantize"
        for node in tower.get_ordered_ops()
        if node.get_friendly_name() in int8._linear_layers(tower)
    ]
    assert quantised[-2:] == [False, False]
    assert sum(quantised) > len(quantised) / 2


@pytest.mark.process
def test_int8_keeps_a_promise_of_its_own(
    quantised: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(quantised), *INT8]) == 0
    assert "int8 (openvino) here against" in capsys.readouterr().out
    spoilt = Path(shutil.copytree(quantised / "model", tmp_path / "model"))
    weights = np.fromfile(spoilt / "int8/images.bin", dtype=np.uint8)
    weights[::7] ^= 0x40
    weights.tofile(spoilt / "int8/images.bin")
    assert main(["verify", str(spoilt), *INT8]) in (1, 2)


@pytest.mark.process
def test_int8_is_compiled_once(quantised: Path, tmp_path: Path) -> None:
    settings = Settings(precision="int8", cache=str(tmp_path / "cache"))
    vectors = [Embedder.load(quantised, settings).embed_text("a cat")]
    (kept,) = (tmp_path / "cache/engines").iterdir()
    made = [file.stat().st_mtime_ns for file in sorted(kept.iterdir())]
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(openvino_towers.Towers, "of_int8")
        vectors.append(Embedder.load(quantised, settings).embed_text("a cat"))
    vectors.append(
        Embedder.load(quantised, settings.replace({"cache": os.devnull})).embed_text("a cat")
    )
    assert [file.stat().st_mtime_ns for file in sorted(kept.iterdir())] == made
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


@pytest.mark.slow
def test_int8_that_costs_too_much_is_refused(
    seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8, "LEAST", 1.1)
    monkeypatch.setattr(int8, "_CALIBRATED", 4)
    monkeypatch.setattr(int8, "_PROMPTS", 20)
    few = tmp_path / "few"
    few.mkdir()
    for number in range(50):
        shutil.copyfile(seen / f"{number}.png", few / f"{number}.png")
    lines: list[str] = []
    with pytest.raises(
        ModelError, match="fewer than 110%: int8 costs this model too much accuracy"
    ):
        package(EMBEDDED, tmp_path / "package", int8=few, say=lines.append)
    assert sum(line.startswith("int8 ") for line in lines) == 2
    assert "int8 in part against" in lines[-1]
    assert not (tmp_path / "package").exists()


def test_int8_needs_images(seen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few"
    few.mkdir()
    shutil.copyfile(seen / "0.png", few / "0.png")
    for source, said in ((few, "1 images; int8 needs 50"), (tmp_path / "no", "no such")):
        arguments = ["package", str(EMBEDDED), "--output", str(tmp_path / "p")]
        assert main([*arguments, "--int8", str(source)]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "p").exists()
    assert main([*arguments, "--force"]) == 2
    assert "--force is for --int8" in capsys.readouterr().err


@pytest.mark.process
def test_a_package_with_int8_installs_openvino(quantised: Path) -> None:
    assert "openvino==" in (quantised / "conda.yaml").read_text()
    assert "openvino" not in (ROOT / "conda.yaml").read_text()
    card = (quantised / "README.md").read_text()
    assert "(`agreement.json`): int8" in card
    assert "against fp32 on 196 images: the nearest is the same for" in card
    assert Probes.read(quantised / "model").tolerances["int8"].cosine > 0.9
    assert openvino_towers.INT8 == "int8"


@pytest.mark.process
def test_openvino_reports_nothing_to_its_makers(tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('telemetry')")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for code, status in (("import openvino", 1), ("import score.model.engines.openvino", 0)):
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True)
        assert done.returncode == status, done.stderr


@pytest.mark.process
def test_int8_gives_a_row_its_vectors_in_any_company(quantised: Path, seen: Path) -> None:
    files = sorted(seen.glob("[0-9]*.png"))[:16]
    rows = [Row(file.read_bytes(), f"a picture of {number}") for number, file in enumerate(files)]
    embedder = Embedder.load(quantised, Settings(precision="int8", verify="off"))
    alone = [embedder.answer([row])[0] for row in rows]
    with ThreadPoolExecutor(8) as pool:
        singles = list(pool.map(lambda row: embedder.answer([row])[0], rows))
    for records in (singles, embedder.answer(rows)):
        for record, reference in zip(records, alone, strict=True):
            for name in ("image_features", "text_features"):
                assert cosine(getattr(record, name), getattr(reference, name)) >= 0.99999
