"""What a model of ours and its reference are compared by: token ids, and vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.type_aliases import Vector
from tests.support.images import SAMPLES, in_base64


def photographs() -> list[Path]:
    """Three images."""
    return sorted((SAMPLES / "images").glob("*.jpg"))[:3]


def row(image: Path) -> Row:
    """Of an image's bytes."""
    return Row(image=in_base64(image.read_bytes()))


def assert_same_ids(ours: Embedder, texts: Sequence[str], reference: Iterable[list[int]]) -> None:
    """That at least 500 texts have the reference's token ids."""
    assert len(texts) >= 500
    for text, ids, wanted in zip(
        texts, parts_of(ours).tokenizer.encode(texts, "end"), reference, strict=True
    ):
        assert ids == wanted, text


def assert_same_vectors(
    ours: Embedder,
    texts: Sequence[str],
    images: Sequence[Path],
    reference: Iterable[Vector],
    tolerance: float,
) -> None:
    """That texts and images, embedded together, have the reference's vectors, to within a share of
    the largest number of each."""
    records = list(ours.embed([*(Row(text=text) for text in texts), *map(row, images)]))
    vectors = [record.text_features for record in records[: len(texts)]]
    vectors += [record.image_features for record in records[len(texts) :]]
    for vector, theirs in zip(vectors, reference, strict=True):
        assert vector is not None
        np.testing.assert_allclose(vector, theirs, atol=tolerance * np.abs(theirs).max())
