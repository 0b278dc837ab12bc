"""The vectors of zero-shot labels; those of the latest label sets are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import chain

from score.concurrency.cancellation import Cancellation
from score.concurrency.forks import renewing
from score.concurrency.steps import on_this_thread
from score.contract.labels import Labels
from score.core.pipeline import Pipeline
from score.errors import BadParams, RowError
from score.model import zeroshot
from score.type_aliases import Matrix, Truncate
from score.wording.quoting import quoted

_KEPT_SETS = 16  # at most 16 × 2000 × 512 floats, 62 MiB, by default
_LONGEST_KEPT = 2**20  # characters of a label set that is kept: its text stays in memory, too


class LabelVectors:
    """Encodes label sets. Safe to share between threads."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        # The latest used come last.
        self._kept: OrderedDict[tuple[Labels, Truncate], Matrix] = OrderedDict()

    def of(self, labels: Labels, truncate: Truncate, call: Cancellation) -> Matrix:
        """Unit vectors, float32 [labels, dimension].

        Raises BadParams for too many prompts, or one that cannot be encoded; Cancelled or
        RequestTimeout if `call` ends.
        """
        asked = labels, truncate
        with self._lock:
            if asked in self._kept:
                self._kept.move_to_end(asked)
                return self._kept[asked]
        vectors = self._encode(labels, truncate, call)
        if sum(map(len, chain(labels.names, *labels.prompts))) <= _LONGEST_KEPT:
            self._keep(asked, vectors)
        return vectors

    def not_kept(self, labels: Labels | None, truncate: Truncate) -> list[str]:
        """The prompts that `of` would encode."""
        if labels is None:
            return []
        with self._lock:
            is_kept = (labels, truncate) in self._kept
        return [] if is_kept else list(chain(*labels.prompts))

    def _keep(self, asked: tuple[Labels, Truncate], vectors: Matrix) -> None:
        with self._lock:
            self._kept[asked] = vectors
            self._kept.move_to_end(asked)
            if len(self._kept) > _KEPT_SETS:
                self._kept.popitem(last=False)

    def _encode(self, labels: Labels, truncate: Truncate, call: Cancellation) -> Matrix:
        counts = [len(prompts) for prompts in labels.prompts]
        most = self._pipeline.settings.max_prompts
        if sum(counts) > most:
            raise BadParams(f"param 'labels' has {sum(counts):,} prompts; at most {most:,}")
        prompts = list(chain(*labels.prompts))
        encoded = []
        for prompt, ids in zip(
            prompts, self._pipeline.tokenizer.encode(prompts, truncate), strict=True
        ):
            if isinstance(ids, RowError):
                raise BadParams(f"param 'labels', {quoted(prompt)}: {ids.message}")
            encoded.append(ids)
        # Equal prompts are encoded once, so that their probabilities are equal to the bit.
        vectors = on_this_thread(self._pipeline.texts(call).vectors(encoded))
        return zeroshot.label_vectors(vectors, counts)
