"""Vectors of records as JSON values."""

from __future__ import annotations

import base64

import numpy as np

from score.contract.rows import Record
from score.type_aliases import Vector


def vector_of(record: Record) -> Vector:
    """The vector of a record that has one: its row had one image or one text."""
    vector = record.text_features if record.image_features is None else record.image_features
    if vector is None:
        raise ValueError("a record without a vector")
    return vector


PACKED = 6
"""Bytes that a number takes as base64, about."""


def packed(record: Record) -> str:
    """A record's vector as base64 of little-endian float32."""
    return base64.b64encode(vector_of(record).astype(np.dtype("<f4")).tobytes()).decode("ascii")
