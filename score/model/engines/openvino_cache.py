"""The cache of compiled models: a model is compiled once, and later starts need no PyTorch.

Theory of operation

1. The key. An entry is a folder `engines/KEY` in the cache of the settings. KEY is the SHA-256 of
   everything that decides what the compiled models are: the weights' bytes, the configuration, the
   normalisation of pixels, the precision, the CPU's name and flags, the versions of OpenVINO and
   PyTorch, and the source of our own modules that load, trace, convert and compile. When any of
   them changes, so does the key; an entry is never updated. Entries that no key leads to any more
   are not removed.
2. A miss. PyTorch loads the towers in fp32; they are traced, converted, compiled for this CPU, and
   exported to files. `storage.cache.cached_folder` collects them in a temporary folder, adds their
   checksums, and renames it to `engines/KEY`: an entry is complete or absent. Of several processes
   that compile the same model at once, the first to rename wins, and the others use its entry. The
   compiled models are freed before the entry is loaded, so that memory never holds both.
3. A hit. The checksums are compared (a damaged entry is made anew), the files are mapped into
   memory, and OpenVINO imports them. A first pass with an empty input makes OpenVINO arrange the
   weights; the mapped pages that it read are then released.
4. A failure. Where the cache cannot be read or written, or OpenVINO refuses an entry that is intact
   (another build wrote it), `load_cached` raises one of `BROKEN`; the refused entry is removed.
   `openvino.load` then logs a warning and uses models that are not in the cache. An error that is
   the model folder's is a ModelError, and final.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.hardware.processor import cpu_flags
from score.images.preprocess import Preprocessor
from score.model.engines.openvino_conversion import release_traces
from score.model.engines.openvino_towers import (
    BROKEN,
    FACTS,
    IMAGES,
    INT8,
    TEXTS,
    Towers,
    cpu_name,
)
from score.settings import Settings
from score.storage import atomic
from score.storage.cache import cached_folder, location
from score.storage.digest import sha256_of

log = logging.getLogger(__name__)

COMPILING = (
    "score.model.engines.openvino_cache",
    "score.model.engines.openvino_towers",
)
"""Our modules that decide how models are compiled, by dotted name."""

TRACING = (
    "score.model.engines.openvino_conversion",
    "score.model.engines.pytorch",
    "score.model.heads",
    "score.model.image_tower",
    "score.model.text_tower",
    "score.model.transformer",
    "score.texts.packing",
)
"""Our modules that decide what is traced and converted, unless int8 models come with the folder."""


def load_cached(
    folder: ModelFolder, settings: Settings, precision: str, unsaved: list[Towers]
) -> Towers:
    """The towers from the cache, compiled and written there first if need be.

    `unsaved` receives towers that were compiled but could not be written. Raises ModelError for a
    broken model folder, and what is in `BROKEN` for a cache that cannot be used.
    """
    make = partial(_compile_and_cache, folder, settings, precision, unsaved)
    entry = cached_folder(location(settings.cache) / "engines" / key(folder, precision), make)
    try:
        return Towers.of_blobs(entry, precision, folder.architecture.vision.image)
    except BROKEN:  # intact, but written by another build of OpenVINO, say
        atomic.remove(entry)
        raise


def _compile_and_cache(
    folder: ModelFolder, settings: Settings, precision: str, unsaved: list[Towers], target: Path
) -> None:
    """Compiles the towers and writes them to the folder `target`."""
    log.info("compiling %s for OpenVINO, once; kept in %s", folder.path, target.parent)
    unsaved.append(compile_towers(folder, settings, precision))
    unsaved[0].export(target, precision)
    unsaved.clear()  # before the entry is loaded
    release_traces()


def compile_towers(folder: ModelFolder, settings: Settings, precision: str) -> Towers:
    """Towers compiled from the model folder, without the cache. Raises ModelError."""
    with blaming(folder, precision):
        if precision == "int8":
            return Towers.of_int8(folder.path / INT8)
        towers = Towers.of_pytorch(folder, settings, precision)
        release_traces()
        return towers


@contextlib.contextmanager
def blaming(folder: ModelFolder, precision: str) -> Iterator[None]:
    """Turns what is in `BROKEN` into a ModelError that names the folder."""
    try:
        yield
    except BROKEN as error:
        source = folder.path / INT8 if precision == "int8" else folder.path
        raise ModelError(f"OpenVINO cannot load {source}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The last line of an error's message: OpenVINO's begin with its own source files."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def key(folder: ModelFolder, precision: str) -> str:
    """The name of an entry, 32 hexadecimal digits. Raises OSError.

    Raises ModuleNotFoundError for a name in COMPILING or TRACING that is no module: a mistake in
    this file, which must not pass for a cache that cannot be used.
    """
    files, libraries, modules = _sources(folder, precision)
    versions = [importlib.metadata.version(name) for name in libraries]
    target = [precision, cpu_name(), *sorted(cpu_flags())]
    configuration = folder.architecture.config()
    digest = hashlib.sha256(json.dumps([versions, target, configuration], sort_keys=True).encode())
    for values in Preprocessor.from_config(folder.preprocessor).normalisation():
        digest.update(values.tobytes())
    for module in modules:
        digest.update(hashlib.sha256(_source(module)).digest())
    for file in files:
        digest.update(bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()[:32]


def _source(module: str) -> bytes:
    """What the file of a module holds, by its dotted name; the package may lie in a zip, as Spark
    sends it. Raises ModuleNotFoundError."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {module}, which the key of the cache names")
    loader: Any = spec.loader  # all of ours have it, that of zips, too
    content: bytes = loader.get_data(spec.origin)
    return content


def _sources(
    folder: ModelFolder, precision: str
) -> tuple[list[Path], tuple[str, ...], tuple[str, ...]]:
    """Files of the model, libraries, and modules of ours that decide what is compiled."""
    if precision == "int8":
        towers = [folder.path / INT8 / name for name in (IMAGES, TEXTS)]
        files = [*towers, *(tower.with_suffix(".bin") for tower in towers)]
        return [*files, folder.path / INT8 / FACTS], ("openvino",), COMPILING
    weights = sorted(folder.path.glob("*.safetensors"))
    return weights, ("openvino", "torch"), (*COMPILING, *TRACING)
