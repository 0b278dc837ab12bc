"""The classes of texts among zero-shot labels, for dialects that classify texts, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from score.contract.params import Params
from score.contract.rows import Record
from score.core.embedder import Embedder, parts_of
from score.model import zeroshot


def with_text_classes(
    embedder: Embedder, records: Sequence[Record], params: Params
) -> list[Record]:
    """The records; those of a text alone gain `labels` and `probs`. `params.labels` must be set."""
    assert params.labels is not None
    vectors = embedder.label_vectors(params.labels, params.truncate)
    scale = parts_of(embedder).encoder.logit_scale
    classified = []
    for record in records:
        if record.text_features is not None and record.image_features is None:
            (probs,) = zeroshot.probabilities(record.text_features[None], vectors, scale)
            labels, ranked = zeroshot.ranked(params.labels.names, probs, params.confidence)
            record = dataclasses.replace(record, labels=labels, probs=ranked)
        classified.append(record)
    return classified
