"""What a server knows of a model before it is loaded, and how it is loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from score.core.embedder import Embedder, load_beside
from score.core.identity import Identity
from score.core.shared import Shared
from score.dialects.base import ModelFacts
from score.folder.model_folder import ModelFolder
from score.settings import Settings


class Loaded(NamedTuple):
    """A model that can answer. identity: None where nobody asks for it."""

    embedder: Embedder
    identity: Identity | None = None


class Source(NamedTuple):
    """A model that may be loaded. facts: what is known of it before. load: called again after the
    model has been unloaded, or could not be loaded."""

    facts: ModelFacts
    load: Callable[[], Loaded]


def source_of(name: str, folder: ModelFolder, settings: Settings, shared: Shared) -> Source:
    """The model in a folder, which is read when the model is loaded."""
    architecture = folder.architecture
    dimension, context = architecture.dimension, architecture.text.context
    facts = ModelFacts(name, dimension, context, created=int(time.time()))
    return Source(facts, partial(_load, name, folder, settings, shared))


def _load(name: str, folder: ModelFolder, settings: Settings, shared: Shared) -> Loaded:
    """Raises ModelError.

    Every answer says the fingerprint, so the model answers once it is known. The folder is read for
    it while the model is loaded, not after that; no further where it cannot be loaded.
    """
    given_up = threading.Event()
    with ThreadPoolExecutor(1, "fingerprint") as thread:
        fingerprint = thread.submit(folder.fingerprint, given_up)
        try:
            embedder = load_beside(shared, folder, settings)
        except BaseException:
            given_up.set()
            raise
        embedder.name = name
        return Loaded(embedder, Identity.of(embedder, fingerprint.result()))
