"""A model of a server: not loaded, being loaded, or loaded; and the requests that use it.

    not loaded ──a request, or `load`──▶ being loaded ──▶ loaded ──idle──▶ not loaded
         ▲───────────────── failed ────────────┘

Requests wait for a model that is being loaded. One that could not be loaded is tried again by the
first request after a pause, which doubles with each failure; until then requests are refused.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Literal

from score.concurrency.backoff import pause_after
from score.concurrency.cancellation import Cancellation
from score.concurrency.steps import Steps, Wait
from score.core.embedder import parts_of
from score.core.identity import Identity
from score.core.loader import Loader
from score.core.model_source import Loaded, Source
from score.dialects.base import ModelFacts
from score.errors import ModelError, ModelUnavailable
from score.model.encoder import release_memory

_LONGEST_PAUSE = 60.0  # seconds between two attempts to load a model


_now = time.monotonic

State = Literal["unloaded", "loading", "loaded", "failed"]


class Watcher:
    """Is told what happens to models, on the thread that loads them. Ignores everything."""

    def model_loaded(self, name: str, loaded: Loaded) -> None:
        """A model is loaded, and will answer once this returns. What this raises is a failure to
        load it."""

    def model_failed(self, name: str, error: Exception) -> None:
        """A model could not be loaded. Must not raise."""

    def model_unloaded(self, name: str) -> None:
        """A model does not answer any more. Must not raise."""


class ServedModel:
    """One model. Safe to share between threads.

    facts, identity: what is known of it, by its latest loading; identity is None before the first.
    """

    def __init__(self, source: Source, loader: Loader, watcher: Watcher) -> None:
        self.facts = source.facts
        self.identity: Identity | None = None
        self._load_source, self._loader, self._watcher = source.load, loader, watcher
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None
        self._loading: Future[bool] | None = None  # whether it could be loaded
        self._uses, self._used = 0, _now()
        self._failures, self._retry_at = 0, 0.0

    @classmethod
    def of(cls, name: str, loaded: Loaded, created: int = 0) -> ServedModel:
        """A model that is loaded already, and stays so."""
        embedder = loaded.embedder
        context = parts_of(embedder).tokenizer.context
        facts = ModelFacts(name, embedder.dimension, context, created)
        model = cls(Source(facts, lambda: loaded), Loader(), Watcher())
        model._ended(loaded)
        return model

    @property
    def name(self) -> str:
        """By which clients name it."""
        return self.facts.name

    @property
    def state(self) -> State:
        """Whether it is loaded now; `failed` where the latest attempt to load it did."""
        with self._lock:
            if self._loaded is not None:
                return "loaded"
            if self._failures:
                return "failed"
            return "unloaded" if self._loading is None else "loading"

    def enter(self, call: Cancellation) -> Steps[Loaded]:
        """Waits until the model is loaded. It stays so until `leave`.

        Raises ModelUnavailable where it cannot be loaded now; Cancelled or RequestTimeout if `call`
        ends while it is being loaded.
        """
        while True:
            with self._lock:
                if self._loaded is not None:
                    self._uses += 1
                    return self._loaded
                loading = self._begin()
            yield from self._wait(loading, call)

    def leave(self) -> None:
        """A request that has entered does not need the model any more."""
        with self._lock:
            self._uses -= 1
            self._used = _now()

    def load(self) -> Future[bool]:
        """Begins to load the model, unless it is loaded or about to be. Returns whether it could
        be loaded. Raises ModelUnavailable during the pause after a failure."""
        with self._lock:
            if self._loaded is not None:
                done = Future[bool]()
                done.set_result(True)
                return done
            return self._begin()

    def unload_if_idle(self, seconds: float) -> None:
        """Unloads a model that no request has used for so long, soon, on the loader's thread."""
        if self._is_idle(seconds):
            self._loader.submit(partial(self._unload, seconds))

    def _begin(self) -> Future[bool]:
        """Held: the lock."""
        if self._loading is None:
            if self._failures and self._retry_at > _now():
                raise self._unavailable()
            self._loader.submit(self._load)
            self._loading = Future()
        return self._loading

    def _wait(self, loading: Future[bool], call: Cancellation) -> Steps[None]:
        over = Future[None]()  # the loading, or the call

        def end(_: object = None) -> None:
            with suppress(InvalidStateError):
                over.set_result(None)

        loading.add_done_callback(end)
        with self._loader.waiting(), call.interrupting(end):
            yield Wait(over, call.left)
            if not over.done():
                call.expire()
        call.check()
        if not loading.result():
            raise self._unavailable()

    def _unavailable(self) -> ModelUnavailable:
        seconds = max(1, math.ceil(self._retry_at - _now()))
        error = ModelUnavailable(
            f"the model {self.name!r} cannot be loaded; try again in {seconds} s"
        )
        error.retry_after = seconds
        return error

    def _load(self) -> None:
        """On the loader's thread."""
        loaded = self._tried()
        if loaded is None:
            release_memory()
        self._ended(loaded)

    def _tried(self) -> Loaded | None:
        """The model; None where it cannot be loaded."""
        try:
            loaded = self._load_source()
            self._watcher.model_loaded(self.name, loaded)
        except Exception as error:
            self._watcher.model_failed(self.name, error)
        except BaseException as error:  # a panic of libraries in Rust
            reason = f"a library failed ({type(error).__name__}): {error}"
            self._watcher.model_failed(self.name, ModelError(reason))
        else:
            return loaded
        return None

    def _ended(self, loaded: Loaded | None) -> None:
        with self._lock:
            loading, self._loading, self._loaded = self._loading, None, loaded
            self._used = _now()
            if loaded is None:
                self._failures += 1
                self._retry_at = _now() + pause_after(self._failures, _LONGEST_PAUSE)
            else:
                self._failures = 0
                self.identity = loaded.identity
                fingerprint = loaded.identity.fingerprint if loaded.identity else None
                self.facts = self.facts._replace(fingerprint=fingerprint)
        if loading is not None:
            loading.set_result(loaded is not None)

    def _is_idle(self, seconds: float) -> bool:
        idle = _now() - self._used
        return self._loaded is not None and not self._uses and idle >= seconds

    def _unload(self, seconds: float) -> None:
        """On the loader's thread."""
        with self._lock:
            if not self._is_idle(seconds):
                return
            self._loaded = None
        self._watcher.model_unloaded(self.name)
        release_memory()
