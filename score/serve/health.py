"""Whether the models still compute the right vectors: what `/health/ready` says."""

from __future__ import annotations

import asyncio
import logging
import time

from anyio import to_thread

from score.core.embedder import Embedder
from score.core.models import Models
from score.core.self_test import SelfTest

log = logging.getLogger(__name__)

_FRESH = 5.0  # seconds for which a verdict is not asked for again
_STALE = 60.0  # seconds for its probes after which a busy model counts as one that hangs
_PATIENCE = 0.8  # seconds that a caller waits for a verdict: Kubernetes' probes wait one second


class Health:
    """Of all models of a server: those that are loaded are probed, and one that could not be loaded
    is a fault until it is, which is tried again. One that nobody has asked for yet is none."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._loaded: dict[str, Readiness] = {}

    def loaded(self, name: str, embedder: Embedder) -> None:
        """A model is loaded. Computes the vectors to compare with, where the package has none."""
        self._loaded[name] = Readiness(embedder)

    def unloaded(self, name: str) -> None:
        """A model is not probed any more."""
        del self._loaded[name]

    async def fault(self) -> str:
        """What is wrong; an empty string if nothing is."""
        faults = dict.fromkeys(self._models.failed(), "it cannot be loaded")
        probed = dict(self._loaded)
        answers = await asyncio.gather(*(model.fault() for model in probed.values()))
        faults |= {name: fault for name, fault in zip(probed, answers, strict=True) if fault}
        if self._models.are_several:
            return "; ".join(f"model {name!r}: {fault}" for name, fault in faults.items())
        return "; ".join(faults.values())


class Readiness:
    """Embeds a probe of each kind now and then, and compares. For one event loop.

    A busy model may take long for its probes; until then the last verdict stands, for a minute.
    """

    def __init__(self, embedder: Embedder) -> None:
        """Computes the vectors to compare with, where the package has none."""
        self._test = SelfTest(embedder)
        self._fault = self._test.fault()
        self._checked = time.monotonic()
        self._running: asyncio.Task[None] | None = None
        self._began = 0.0

    async def fault(self) -> str:
        """What is wrong; an empty string if nothing is."""
        if time.monotonic() - self._checked > _FRESH:
            if self._running is None or self._running.done():
                self._running, self._began = asyncio.create_task(self._check()), time.monotonic()
            await asyncio.wait([self._running], timeout=_PATIENCE)
            waited = time.monotonic() - self._began
            if not self._running.done() and waited > _STALE:
                return f"no answer from the model for {waited:.0f} s"
        return self._fault

    async def _check(self) -> None:
        fault = await to_thread.run_sync(self._test.fault)
        if fault != self._fault:
            level = logging.ERROR if fault else logging.INFO
            log.log(level, "%s", fault or "the model computes the right vectors again")
        self._fault, self._checked = fault, time.monotonic()
