"""Engine `auto`: OpenVINO where it is right and measured faster, else PyTorch; measured once."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from score.core.embedder import Embedder, parts_of
from score.core.verify import verify
from score.errors import ModelError
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.hardware import drivers, processor
from score.images.preprocess import Preprocessor
from score.model import engine_choice, precision, timing
from score.model.encoder import Encoder
from score.model.engine_choice import Choice
from score.model.timing import Speedup
from score.settings import Settings
from score.texts.tokenizer import Tokenizer
from tests.support.surfaces import ROOT

FASTER, SLOWER = Speedup(1.2, 1.1, 1.3, 1.06), Speedup(1.2, 1.1, 1.3, 1.04)
BOTH = ["openvino", "torch"]


class Machine:
    """One on which OpenVINO is installed: PyTorch by another name. `speedup`: what is measured."""

    def __init__(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        self.cache, self.speedup = cache, FASTER
        self.loads: list[str] = []  # the engines that were loaded since `load` was called
        self.measured = 0
        self.openvino: Callable[[Encoder], object] = lambda encoder: None  # done to OpenVINO's
        self._fastest = precision.fastest
        patch.setattr(precision, "fastest", self._load)
        patch.setattr(timing, "speedup", self._measure)
        patch.setattr(engine_choice, "installed", lambda: True)

    def _load(self, *model: Any) -> Encoder:
        *parts, settings = model
        self.loads.append(settings.engine)
        encoder = self._fastest(*parts, settings.replace({"engine": "torch"}))
        encoder.engine.name = settings.engine  # type: ignore[misc]
        if settings.engine == "openvino":
            self.openvino(encoder)
        return encoder

    def _measure(self, first: Encoder, second: Encoder, ids: Any) -> Speedup:
        assert [first.engine.name, second.engine.name] == ["torch", "openvino"]
        assert len(ids) > 1
        self.measured += 1
        return self.speedup

    def settings(self, **changes: Any) -> Settings:
        return Settings(**{"device": "cpu", "verify": "off", "cache": str(self.cache), **changes})

    def load(self, model: Path = EMBEDDED, **changes: Any) -> str:
        """The engine that a load takes."""
        self.loads.clear()
        return parts_of(Embedder.load(model, self.settings(**changes))).encoder.engine.name

    def file(self) -> Path:
        (file,) = (self.cache / "engine-choices").glob("*.json")
        return file


@pytest.fixture
def machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Machine:
    caplog.set_level(logging.DEBUG, "score")
    return Machine(monkeypatch, tmp_path / "cache")


@pytest.mark.parametrize(("speedup", "taken"), [(FASTER, "openvino"), (SLOWER, "torch")])
def test_the_faster_engine_is_taken_and_measured_once(
    speedup: Speedup, taken: str, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.speedup = speedup
    for loads, whence in ((BOTH, "decided now"), ([taken], "stored"), ([taken], "stored")):
        caplog.clear()
        assert (machine.load(), machine.loads) == (taken, loads)
        whence = f"as stored in {machine.file()}" if whence == "stored" else whence
        told = [line.message for line in caplog.records if "engine auto" in line.message]
        assert told == [
            f"engine auto: {taken}, {whence}: "
            f"speed of OpenVINO over PyTorch, measured once: {speedup}"
        ]
    assert machine.measured == 1


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_an_engine_that_is_asked_for_is_taken_unmeasured(engine: str, machine: Machine) -> None:
    assert (machine.load(engine=engine), machine.loads) == (engine, [engine])
    assert not machine.cache.exists()


def test_int8_is_nothing_to_measure(machine: Machine) -> None:
    with pytest.raises(ModelError, match="PyTorch computes in fp32"):  # OpenVINO by another name
        machine.load(precision="int8")
    assert machine.loads == ["auto"]


@pytest.mark.parametrize("why", ["a GPU", "not installed", "fp16", "no probes"])
def test_elsewhere_it_is_pytorch(
    why: str,
    machine: Machine,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, changes = EMBEDDED, {}
    if why == "a GPU":
        monkeypatch.setattr(drivers, "may_have_gpu", lambda: True)
        changes = {"device": "auto"}
    elif why == "not installed":
        monkeypatch.setattr(engine_choice, "installed", lambda: False)
    elif why == "fp16":
        changes = {"precision": "fp16"}
    else:
        model = tiny
    assert (machine.load(model, **changes), machine.loads) == ("torch", ["torch"])
    said = {"a GPU": "there is a GPU", "no probes": "has no probes.json to prove"}.get(why, why)
    assert any("engine auto: torch" in line and said in line for line in caplog.messages)
    assert not machine.cache.exists()


def test_a_device_that_is_not_named_may_be_the_cpu(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "may_have_gpu", lambda: False)
    assert machine.load(device="auto") == "openvino"


def test_an_openvino_that_does_not_load_is_told_and_not_tried_again(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Encoder) -> None:
        raise ModelError("OpenVINO cannot load it")

    machine.openvino = fails
    assert (machine.load(), machine.loads) == ("torch", BOTH)
    assert ("WARNING", "engine auto: OpenVINO cannot be used: OpenVINO cannot load it") in [
        (line.levelname, line.message) for line in caplog.records
    ]
    assert (machine.load(), machine.loads, machine.measured) == ("torch", ["torch"], 0)


@pytest.mark.parametrize("damaged", ["model.safetensors", "probes.json"])
def test_a_damaged_model_is_told_once(
    damaged: str, machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for each engine and precision that `auto` would try."""
    folder = tmp_path / "damaged"
    shutil.copytree(EMBEDDED, folder)
    content = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=damaged):
        machine.load(folder, verify="quick")
    assert machine.loads == ([] if damaged == "model.safetensors" else ["torch"])
    assert [line for line in caplog.records if line.levelno > logging.DEBUG] == []


def test_an_openvino_that_fails_later_is_done_without(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    assert machine.load() == "openvino"

    def fails(_: Encoder) -> None:
        raise RuntimeError("no room left")

    machine.openvino = fails
    assert (machine.load(), machine.loads) == ("torch", BOTH)
    assert "torch, as OpenVINO does not load this time: no room left" in caplog.text


def test_an_openvino_that_is_wrong_is_not_measured(machine: Machine) -> None:
    """By an error that a cosine of 0.9999 allows, and loading in fp32 does not."""

    def spoil(encoder: Encoder) -> None:
        right = encoder.engine.texts

        def wrong(texts: Any) -> Any:
            vectors = right(texts)
            vectors[..., 0] += 0.01 * abs(vectors).max()
            return vectors

        encoder.engine.texts = wrong  # type: ignore[method-assign]

    machine.openvino = spoil
    assert (machine.load(verify="full"), machine.loads, machine.measured) == ("torch", BOTH, 0)
    choice = Choice.read(machine.file())
    assert choice is not None
    assert choice.reason.startswith("with OpenVINO, the vector of ")


def test_an_openvino_that_is_less_exact_than_auto_wants_is_not_measured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "LEAST_COSINE", 1.1)
    assert (machine.load(), machine.loads, machine.measured) == ("torch", BOTH, 0)
    assert "with OpenVINO the least cosine to the reference is " in machine.file().read_text()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff\0", b'{"engine": "openv', b'{"engine": "tpu", "reason": "new"}', b"{}"],
)
def test_a_file_that_holds_no_decision_is_written_anew(content: bytes, machine: Machine) -> None:
    assert machine.load() == "openvino"
    right = machine.file().read_bytes()
    machine.file().write_bytes(content)
    assert (machine.load(), machine.loads) == ("openvino", BOTH)
    assert machine.file().read_bytes() == right


def test_a_decision_that_cannot_be_kept_is_taken_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    assert machine.load() == "openvino"
    file = machine.file()
    file.unlink()
    (file / "folder").mkdir(parents=True)
    assert (machine.load(), machine.loads) == ("openvino", BOTH)
    assert "will be measured again, as it cannot be kept" in caplog.text


def test_where_nothing_can_be_kept_it_is_pytorch(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.cache.write_text("a file")
    assert (machine.load(), machine.loads) == ("torch", ["torch"])
    assert "torch: no measurement can be kept in" in caplog.text


@pytest.mark.parametrize("error", [PermissionError("no access"), ModuleNotFoundError("openvino")])
def test_what_cannot_be_told_apart_is_pytorchs(
    error: Exception, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> str:
        raise error

    monkeypatch.setattr(engine_choice, "_key", fails)
    assert (machine.load(), machine.loads) == ("torch", ["torch"])


def test_a_measurement_that_fails_is_pytorchs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a batch does not fit")

    monkeypatch.setattr(timing, "speedup", fails)
    assert (machine.load(), machine.loads) == ("torch", BOTH)
    assert "WARNING" in caplog.text
    assert (machine.load(), machine.loads) == ("torch", ["torch"])
    assert "OpenVINO cannot be measured: a batch does not fit" in caplog.messages[-2]


def test_a_model_too_large_for_two_copies_is_pytorchs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parameters = ModelFolder.open(EMBEDDED).architecture.parameters
    monkeypatch.setattr(processor, "free_memory", lambda: 12 * parameters - 1)
    assert (machine.load(), machine.loads) == ("torch", ["torch"])
    assert "GiB of memory" in caplog.text
    monkeypatch.setattr(processor, "free_memory", lambda: 12 * parameters)
    assert machine.load() == "openvino", "what is short now is not kept"


def key(settings: Settings, model: Path = EMBEDDED) -> str:
    folder = ModelFolder.open(model)
    parts = (Tokenizer.load(folder), Preprocessor.from_config(folder.preprocessor))
    return engine_choice._key(engine_choice._Model(folder, *parts, settings))


def test_a_decision_is_of_one_model_precision_and_machine(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = machine.settings()
    keys = [key(settings), key(machine.settings(precision="fp32"))]
    (tmp_path / "model").mkdir()
    for file in EMBEDDED.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    assert key(settings, tmp_path / "model") == keys[0], "the folder's name does not matter"
    with (tmp_path / "model/probes.json").open("a") as stream:
        stream.write("\n")
    keys.append(key(settings, tmp_path / "model"))
    for name in ("cpu_model", "cores", "threads_asked"):
        with monkeypatch.context() as patch:
            patch.setattr(processor, name, lambda: "another")
            keys.append(key(settings))
    versions = importlib.metadata.version
    for library in ("torch", "openvino"):
        with monkeypatch.context() as patch:

            def version(name: str, other: str = library) -> str:
                return "0" if name == other else versions(name)

            patch.setattr(importlib.metadata, "version", version)
            keys.append(key(settings))
    monkeypatch.setattr(engine_choice, "__version__", "another")
    keys.append(key(settings))
    assert len(set(keys)) == len(keys)


def test_one_measures_while_others_wait(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, waits = threading.Event(), threading.Event()
    wait, measured = engine_choice.wait_for_file, []

    def waiting(file: Path, seconds: float) -> int | None:
        if begun.is_set():
            waits.set()
        return wait(file, seconds)

    def measure(*_: object) -> Speedup:
        measured.append(1)
        begun.set()
        assert waits.wait(30), "the other came to the lock"
        return FASTER

    monkeypatch.setattr(engine_choice, "wait_for_file", waiting)
    monkeypatch.setattr(timing, "speedup", measure)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(machine.load)
        assert begun.wait(30)
        second = threads.submit(machine.load)
        assert (first.result(), second.result()) == ("openvino", "openvino")
    assert len(measured) == 1


def test_those_that_have_waited_load_side_by_side(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that come to the lock before the choice is stored: each loads while the other does."""
    assert machine.load() == "openvino"
    folder = ModelFolder.open(EMBEDDED)
    parts = (Tokenizer.load(folder), Preprocessor.from_config(folder.preprocessor))
    model = engine_choice._Model(folder, *parts, machine.settings())
    both_load = threading.Barrier(2)
    monkeypatch.setattr(precision, "fastest", lambda *_: both_load.wait(30))
    with ThreadPoolExecutor(2) as threads:
        loads = [threads.submit(engine_choice._decided, model, machine.file()) for _ in range(2)]
        assert {load.result() for load in loads} == {0, 1}  # their places at the barrier


def test_a_wait_that_is_too_long_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.load() == "openvino"
    machine.file().unlink()
    descriptor = engine_choice.wait_for_file(next(machine.cache.glob("*/*.lock")), 0)
    assert descriptor is not None
    monkeypatch.setattr(engine_choice, "_PATIENCE", 0.2)
    assert (machine.load(), machine.loads) == ("torch", ["torch"])


def test_verify_says_which_engine(machine: Machine) -> None:
    _, computed, findings = verify(EMBEDDED, machine.settings())
    assert computed == "fp32 (openvino)"
    assert all(finding.passed for finding in findings)


# -- timing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speedup", "pays"),
    [
        (Speedup(1.0, 1.0, 1.05, 1.05), True),
        (Speedup(0.99, 2.0, 2.0, 2.0), False),
        (Speedup(2.0, 0.99, 2.0, 2.0), False),
        (Speedup(2.0, 2.0, 1.04, 2.0), False),
        (Speedup(2.0, 2.0, 2.0, 1.04), False),
    ],
)
def test_another_engine_pays_by_a_margin(speedup: Speedup, pays: bool) -> None:
    assert speedup.pays is pays
    assert str(speedup).startswith(f"one text {speedup.one_text:.2f}, one image ")


def test_both_engines_compute_the_same_inputs_in_turns(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that passes move: the second engine takes half as long for texts."""
    settings, now, passes = Settings(device="cpu", batch_size=4), [0.0], []
    encoders = [parts_of(Embedder.load(tiny, settings)).encoder for _ in range(2)]

    def counted(number: int, kind: str, seconds: float) -> Callable[[Any], None]:
        def compute(inputs: Any) -> None:
            passes.append((kind, number, len(inputs)))
            now[0] += seconds * len(inputs)

        return compute

    for number, encoder in enumerate(encoders):
        for kind, seconds in (("texts", 0.004 / (number + 1)), ("images", 0.02)):
            monkeypatch.setattr(encoder, kind, counted(number, kind, seconds))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    speedup = timing.speedup(encoders[0], encoders[1], [[1, 2], [1, 3, 2]])
    assert speedup == pytest.approx((2, 1, 2, 1))
    assert passes[::2] == [(kind, 0, size) for kind, number, size in passes if number == 0]
    assert dict.fromkeys((kind, size) for kind, _, size in passes) == dict.fromkeys(
        [("texts", 1), ("images", 1), ("texts", 64), ("images", 4)]
    )
    assert now[0] < 4 * 2 * timing._SECONDS


@pytest.mark.parametrize(("seconds", "images"), [(0.001, 32), (0.04, 4), (0.2, 1), (60.0, 1)])
def test_a_batch_is_as_large_as_time_allows(seconds: float, images: int) -> None:
    assert timing._affordable(seconds, 32) == images


# -- OpenVINO itself -------------------------------------------------------------------------------

CODE = """
import sys
from score.core.embedder import Embedder, parts_of
from score.settings import Settings
embedder = Embedder.load(settings=Settings(device="cpu", cache=sys.argv[1], verify="off"))
embedder.embed_text("a cat")
other = {"torch": "openvino", "openvino": "torch"}
engine = parts_of(embedder).encoder.engine.name
print(engine, other[engine] in sys.modules)
"""


def start(cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, str(cache)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate()
    assert process.returncode == 0
    return output.split()


@pytest.mark.process
@pytest.mark.slow
def test_processes_agree_and_later_ones_import_one_engine(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    both = [start(tmp_path), start(tmp_path)]  # at once
    taken = {said(process)[0] for process in both}
    (file,) = (tmp_path / "engine-choices").glob("*.json")
    choice = Choice.read(file)
    assert choice is not None
    assert taken == {choice.engine}
    assert "measured once: one text " in choice.reason
    for engine in ("torch", "openvino"):  # whichever it was
        file.write_text(json.dumps({"engine": engine, "reason": "the test's"}))
        assert said(start(tmp_path)) == [engine, "False"]
