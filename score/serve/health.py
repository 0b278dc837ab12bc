"""Whether the model still computes the right vectors: what `/health/ready` says."""

from __future__ import annotations

import asyncio
import logging
import time

from anyio import to_thread

from score.core.embedder import Embedder
from score.core.self_test import SelfTest

log = logging.getLogger(__name__)

_FRESH = 5.0  # seconds for which a verdict is not asked for again
_STALE = 60.0  # seconds for its probes after which a busy model counts as one that hangs
_PATIENCE = 0.8  # seconds that a caller waits for a verdict: Kubernetes' probes wait one second


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
