"""What the models of a process share: one thread of passes, the downloads and decoding threads, and
the bounds on requests. An embedder that is loaded alone has its own.

So the bounds hold for the process, whatever number of models it has, and passes of different models
take turns on the cores.
"""

from __future__ import annotations

import weakref

from score.concurrency.forks import renewing
from score.concurrency.turns import FairExecutor
from score.core.admission import UnderWay
from score.core.batching import Batcher
from score.fetch.fetcher import Fetcher
from score.hardware.processor import cores
from score.settings import Settings


class Shared:
    """Safe to share between threads.

    batcher: computes the passes. fetcher: downloads. decoders: the threads that decode images,
    `decode_workers` of them.
    under_way: the requests that count towards the bounds. streams: those that divide the threads.
    """

    def __init__(self, settings: Settings) -> None:
        self.batcher = Batcher()
        self.fetcher = Fetcher(settings)
        # One thread a core, however many images are fetched: the allocator keeps what a thread has
        # freed for that thread.
        self.decode_workers = settings.decode_workers or cores()
        self.decoders = FairExecutor(self.decode_workers, "decode")
        self.under_way = UnderWay()
        self.streams: weakref.WeakSet[object] = weakref.WeakSet()
        renewing(self._renew)

    def _renew(self) -> None:
        self.streams.clear()
