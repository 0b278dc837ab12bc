"""What all streams of an embedder share: who prepares rows, and the forward passes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from score.core.batching import Batcher, Compute
from score.core.deduplication import Deduplicated, digest
from score.core.observer import NOBODY, Observer
from score.core.preparation import Preparer
from score.images.preprocess import Preprocessor
from score.model.encoder import Encoder
from score.settings import Settings
from score.texts.tokenizer import Tokenizer
from score.type_aliases import Matrix

_PASS_TOKENS = 2560  # of texts in one pass: 32 rows of 80


class Pipeline:
    """Preparation and encoding. Safe to share between threads.

    encode_images: uint8 images → vectors, in passes that all callers share. encode_texts: token ids
    → vectors, likewise. streams: those under way, among which the threads are divided.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        preprocessor: Preprocessor,
        settings: Settings,
    ) -> None:
        self.encoder, self.tokenizer, self.settings = encoder, tokenizer, settings
        self.preparer = Preparer(tokenizer, preprocessor, settings)
        self.observer: Observer = NOBODY
        self.batcher = Batcher()
        images, texts = (
            self._observed("image", encoder.images),
            self._observed("text", encoder.texts),
        )
        self.encode_images = self.batcher.shared(images, settings.batch_size, lambda _: 1)
        self.encode_texts = self.batcher.shared(texts, _PASS_TOKENS, len)
        self.streams: weakref.WeakSet[object] = weakref.WeakSet()

    def observe(self, observer: Observer) -> None:
        """Reports to an observer from now on."""
        self.observer = self.preparer.observer = observer

    def _observed(self, kind: str, compute: Compute) -> Compute:
        def observed(inputs: Sequence[Any]) -> Matrix:
            self.observer.encoding(kind, len(inputs))
            with self.observer.timed("encode"):
                return compute(inputs)

        return observed

    def images(self) -> Deduplicated:
        """`encode_images` for one caller, each distinct image encoded once."""
        return Deduplicated(self.encode_images, self.encoder.dimension, digest)

    def texts(self) -> Deduplicated:
        """`encode_texts` for one caller, each distinct text encoded once."""
        return Deduplicated(self.encode_texts, self.encoder.dimension, tuple)
