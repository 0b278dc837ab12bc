"""What all streams of an embedder share: who prepares rows, and the forward passes. What the models
of a process share beside that is in `shared`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from score.concurrency.cancellation import Cancellation
from score.core.admission import Admission, Paces
from score.core.batching import Compute, Pass, SharedCompute
from score.core.deduplication import Deduplicated, Encode, digest
from score.core.observer import NOBODY, Observer
from score.core.out_of_memory import Halving
from score.core.pace import Pace
from score.core.preparation import Preparer
from score.core.shared import Shared
from score.images.preprocess import Preprocessor
from score.model.encoder import Encoder
from score.settings import Settings
from score.texts.packing import ROW
from score.texts.tokenizer import Tokenizer
from score.type_aliases import Matrix


class Pipeline:
    """Preparation and encoding. Safe to share between threads.

    batch_size: images in one forward pass.
    encode_images: uint8 images → vectors, in passes that all callers share. encode_texts: token ids
    → vectors, likewise. streams: those under way, among which the threads are divided. admission:
    of requests.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        preprocessor: Preprocessor,
        settings: Settings,
        shared: Shared,
    ) -> None:
        self.encoder, self.tokenizer, self.settings = encoder, tokenizer, settings
        self.batch_size = settings.batch_size or encoder.engine.pass_sizes.images
        self.preparer = Preparer(tokenizer, preprocessor, settings, shared)
        self.observer: Observer = NOBODY
        self.batcher, self.streams = shared.batcher, shared.streams
        self.host_times = shared.fetcher.host_times
        self._decode_workers = shared.decode_workers
        self._image_pace, self._token_pace = Pace(), Pace()
        images = self._image_pace.of(Halving(encoder.images), lambda _: 1)
        texts = self._token_pace.of(Halving(encoder.texts), len)
        self.encode_images = self.batcher.shared(
            self._observed("image", images),
            self.batch_size,
            lambda _: 1,
            partial(self._passed, "image"),
        )
        self.encode_texts = self.batcher.shared(
            self._observed("text", texts),
            ROW * encoder.engine.pass_sizes.rows,
            len,
            partial(self._passed, "text"),
        )
        self.admission = Admission(settings, self.paces, tokenizer.context, shared.under_way)

    def observe(self, observer: Observer) -> None:
        """Reports to an observer from now on."""
        self.observer = self.preparer.observer = observer

    def _observed(self, kind: str, compute: Compute) -> Compute:
        def observed(inputs: Sequence[Any]) -> Matrix:
            self.observer.encoding(kind, len(inputs))
            with self.observer.timed("encode"):
                return compute(inputs)

        return observed

    def _passed(self, kind: str, done: Pass) -> None:
        self.observer.passed(kind, done)

    def paces(self) -> Paces:
        """What the work for an image and for a token takes now. Images are decoded while others
        are encoded, so that the slower of the two counts."""
        decoding = self.preparer.pace.seconds / self._decode_workers
        return Paces(max(decoding, self._image_pace.seconds), self._token_pace.seconds)

    def images(self, call: Cancellation | None = None) -> Deduplicated:
        """`encode_images` for one caller, each distinct image encoded once."""
        return Deduplicated(_for(self.encode_images, call), self.encoder.dimension, digest)

    def texts(self, call: Cancellation | None = None) -> Deduplicated:
        """`encode_texts` for one caller, each distinct text encoded once."""
        return Deduplicated(_for(self.encode_texts, call), self.encoder.dimension, tuple)


def _for(compute: SharedCompute, call: Cancellation | None) -> Encode:
    return lambda inputs: compute(inputs, call)
