"""Engine `auto`: OpenVINO where it is right and faster on this machine, else PyTorch.

Theory of operation

1. Candidates. OpenVINO is considered where it is installed, the model is computed on a CPU in a
   precision that both engines have, and the package has probes. Anything else is PyTorch.
2. The decision. OpenVINO is loaded first, which compiles the model into the cache, and must pass
   every probe, by its tolerance and by the cosine that precision `auto` wants. Then PyTorch is
   loaded beside it, both compute the same inputs in turns (`timing`), and the slower one is freed.
   Each engine computes in the precision that `precision.fastest` gives it. Both are in memory at
   once for as long as that takes; where they do not fit, it is PyTorch.
3. The stored decision. It is kept in `engine-choices/KEY.json` in the cache of the settings. KEY is
   a digest of what speed and rightness depend on: the model, the precision asked for, the
   processor, the numbers of cores and threads, and the versions of the libraries and of this
   distribution. Later loads take the engine named there, without importing the other's library.
   A file that is damaged, or no decision, is ignored, and written anew.
4. Several processes, or threads. One at a time measures a model, holding a lock on
   `engine-choices/KEY.lock`: passes of another would disturb it. The others wait, release the lock
   as soon as they have it, and load beside each other what is stored. Models of other keys have
   other locks. Where the cache cannot be written it is PyTorch, since OpenVINO would be compiled,
   and both be measured, at every start.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from score import __version__
from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.hardware import drivers, processor
from score.hardware.locks import wait_for_file
from score.images.preprocess import Preprocessor
from score.model import encoder, precision, timing
from score.model.encoder import Encoder
from score.model.probes import FILE, Probes
from score.settings import Settings
from score.storage import cache
from score.texts.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_FOLDER = "engine-choices"
_PRECISIONS = ("auto", "fp32", "bf16")  # that both engines compute in on a CPU
_COPIES = 3  # of the weights in fp32: conversion to OpenVINO takes two, as measured
_PATIENCE = 300.0  # seconds to wait for another process that measures
_UNUSABLE = (ModelError, RuntimeError, TypeError, OSError, MemoryError)
"""What loading or computing raises where OpenVINO cannot run a model."""


class Choice(NamedTuple):
    """engine: torch or openvino. reason: why, for the log."""

    engine: str
    reason: str

    @classmethod
    def read(cls, file: Path) -> Choice | None:
        """The stored decision; None where there is none, or the file is something else."""
        content = cache.read_json(file) or {}
        engine, reason = content.get("engine"), content.get("reason")
        if engine in ("torch", "openvino") and isinstance(reason, str):
            return cls(engine, reason)
        return None

    def write(self, file: Path) -> None:
        """Stores the decision. Raises OSError."""
        cache.write_json(file, self._asdict())


class _Model(NamedTuple):
    """A model folder and the settings to load it with."""

    folder: ModelFolder
    tokenizer: Tokenizer
    preprocessor: Preprocessor
    settings: Settings

    def load(self, engine: str) -> Encoder:
        """With an engine, in the precision of the settings or the one that passes its probes."""
        return precision.fastest(*self[:3], self.settings.replace({"engine": engine}))

    def probes(self) -> Probes:
        """The folder's probes. Raises ModelError."""
        probes = Probes.read(self.folder.path)
        assert probes is not None, "a model without them is no candidate"
        return probes


def fastest(
    folder: ModelFolder, tokenizer: Tokenizer, preprocessor: Preprocessor, settings: Settings
) -> Encoder:
    """The folder's model with the engine and precision of the settings, or what `auto` chooses.

    Raises ModelError.
    """
    encoder.check(folder, settings)
    model = _Model(folder, tokenizer, preprocessor, settings)
    if settings.engine != "auto" or settings.precision == "int8":
        return precision.fastest(*model)
    if reason := _excluded(model):
        log.debug("engine auto: torch: %s", reason)
        return model.load("torch")
    try:
        file = _file(model)
    except (OSError, ImportError) as error:  # probes that cannot be read; OpenVINO without metadata
        log.warning("engine auto: torch, as the choice cannot be kept: %s", error)
        return model.load("torch")
    choice = Choice.read(file)
    return _as_stored(model, choice, file) if choice else _decided(model, file)


def _excluded(model: _Model) -> str:
    """Why OpenVINO is not considered; an empty string where it is."""
    settings = model.settings
    if settings.device != "cpu" and (settings.device != "auto" or drivers.may_have_gpu()):
        return "not on a CPU, or there is a GPU"
    if settings.precision not in _PRECISIONS:
        return f"OpenVINO does not compute in {settings.precision}"
    if not installed():
        return "OpenVINO is not installed"
    if not (model.folder.path / FILE).is_file():
        return f"{model.folder.path} has no {FILE} to prove another engine with"
    try:
        model.probes()
    except ModelError as error:  # which loading raises, unless it needs no probes
        return str(error)
    return ""


def installed() -> bool:
    """Whether OpenVINO can be imported, as far as can be told without importing it."""
    return find_spec("openvino") is not None


def _as_stored(model: _Model, choice: Choice, file: Path) -> Encoder:
    log.info("engine auto: %s, as stored in %s: %s", choice.engine, file, choice.reason)
    if choice.engine == "openvino":
        try:
            return model.load("openvino")
        except _UNUSABLE as error:
            log.warning("engine auto: torch, as OpenVINO does not load this time: %s", error)
    return model.load("torch")


def _decided(model: _Model, file: Path) -> Encoder:
    """The engine that a measurement chooses, and stores; PyTorch where none is possible."""
    if reason := _too_large(model.folder):
        log.info("engine auto: torch: %s", reason)
        return model.load("torch")
    with _alone(file) as alone:
        choice = Choice.read(file)  # another process may have measured meanwhile
        if alone and not choice:
            return _measured(model, file)
    if choice:  # loaded without the lock: the processes that have waited load side by side
        return _as_stored(model, choice, file)
    log.info(
        "engine auto: torch: no measurement can be kept in %s, or another process takes too long",
        file.parent,
    )
    return model.load("torch")


def _too_large(folder: ModelFolder) -> str:
    needed, free = _COPIES * 4 * folder.architecture.parameters, processor.free_memory()
    if free is None or needed <= free:
        return ""
    return f"comparing takes {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free"


@contextmanager
def _alone(file: Path) -> Iterator[bool]:
    """A block in which no other process measures for a file; False where that is not possible."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = wait_for_file(file.with_suffix(".lock"), _PATIENCE)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _measured(model: _Model, file: Path) -> Encoder:
    """The faster of both engines, if OpenVINO is right; its name is stored."""
    openvino, reason = _proven(model)
    torch = model.load("torch")
    choice = Choice("torch", reason)
    if openvino and torch.engine.device == "cpu":
        choice = _compared(model, torch, openvino)
    faster = openvino if openvino and choice.engine == "openvino" else torch
    log.info("engine auto: %s, decided now: %s", *choice)
    try:
        choice.write(file)
    except OSError as error:
        log.warning("engine auto: will be measured again, as it cannot be kept: %s", error)
    del torch, openvino
    processor.release_free_memory()
    return faster


def _proven(model: _Model) -> tuple[Encoder | None, str]:
    """OpenVINO if it passes every probe; else None, and why it does not."""
    try:
        openvino = model.load("openvino")
        findings = model.probes().check(openvino, model.tokenizer, model.preprocessor)
    except _UNUSABLE as error:
        log.warning("engine auto: OpenVINO cannot be used: %s", error)
        return None, f"OpenVINO cannot be used: {error}"
    if failed := [finding for finding in findings if not finding.passed]:
        return None, f"with OpenVINO, {failed[0]}"
    if (cosine := precision.least_cosine(findings)) < precision.LEAST_COSINE:
        return None, f"with OpenVINO the least cosine to the reference is {cosine:.6f}"
    return openvino, "PyTorch does not compute on the CPU"


def _compared(model: _Model, torch: Encoder, openvino: Encoder) -> Choice:
    texts = [probe.ids for probe in model.probes().texts]
    try:
        speedup = timing.speedup(torch, openvino, texts)
    except _UNUSABLE as error:
        log.warning("engine auto: OpenVINO cannot be measured: %s", error)
        return Choice("torch", f"OpenVINO cannot be measured: {error}")
    name = "openvino" if speedup.pays else "torch"
    return Choice(name, f"speed of OpenVINO over PyTorch, measured once: {speedup}")


def _file(model: _Model) -> Path:
    """Where a decision is stored. Raises OSError, ImportError."""
    return cache.location(model.settings.cache) / _FOLDER / f"{_key(model)}.json"


def _key(model: _Model) -> str:
    """32 hexadecimal digits.

    The weights are not read, which would take half a second for 600 MB: probes hold what the
    reference computed with them, so other weights have other probes.
    """
    path = model.folder.path
    weights = sorted((file.name, file.stat().st_size) for file in path.glob("*.safetensors"))
    versions = [__version__, *map(importlib.metadata.version, ("torch", "openvino"))]
    machine = [
        processor.cpu_model(),
        sorted(processor.cpu_flags()),
        processor.cores(),
        processor.threads_asked(),
    ]
    known = [
        versions,
        machine,
        model.settings.precision,
        weights,
        model.folder.architecture.config(),
    ]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    digest.update((path / FILE).read_bytes())
    return digest.hexdigest()[:32]
