"""The vectors of zero-shot labels; those of the latest label sets are kept."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from score.contract.labels import Labels
from score.core.pipeline import Pipeline
from score.errors import BadParams, RowError
from score.fetch.cancellation import Cancellation
from score.model import zeroshot
from score.type_aliases import Matrix, Truncate

_KEPT_SETS = 16  # at most 16 × 2000 × 512 floats, 62 MiB, by default
_LONGEST_KEPT = 2**20  # characters of a label set that is kept: its text stays in memory, too


@dataclass(frozen=True, slots=True)
class _Asked:
    """A label set as the key of what is kept; equal whichever call asks for it."""

    labels: Labels
    truncate: Truncate
    call: Cancellation = field(compare=False)


class LabelVectors:
    """Encodes label sets. Safe to share between threads."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._kept = functools.lru_cache(_KEPT_SETS)(self._encode)

    def of(self, labels: Labels, truncate: Truncate, call: Cancellation) -> Matrix:
        """Unit vectors, float32 [labels, dimension].

        Raises BadParams for too many prompts, or one that cannot be encoded; Cancelled or
        RequestTimeout if `call` ends.
        """
        asked = _Asked(labels, truncate, call)
        texts = [*labels.names, *(prompt for prompts in labels.prompts for prompt in prompts)]
        if sum(map(len, texts)) > _LONGEST_KEPT:
            return self._encode(asked)
        return self._kept(asked)

    def _encode(self, asked: _Asked) -> Matrix:
        labels = asked.labels
        counts = [len(prompts) for prompts in labels.prompts]
        most = self._pipeline.settings.max_prompts
        if sum(counts) > most:
            raise BadParams(f"param 'labels' has {sum(counts):,} prompts; at most {most:,}")
        prompts = [prompt for several in labels.prompts for prompt in several]
        encoded = []
        for prompt, ids in zip(
            prompts, self._pipeline.tokenizer.encode(prompts, asked.truncate), strict=True
        ):
            if isinstance(ids, RowError):
                raise BadParams(f"param 'labels', {prompt[:80]!r}: {ids.message}")
            encoded.append(ids)
        # Equal prompts are encoded once, so that their probabilities are equal to the bit.
        return zeroshot.label_vectors(self._pipeline.texts(asked.call).vectors(encoded), counts)
