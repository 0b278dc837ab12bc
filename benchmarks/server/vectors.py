"""Vectors in answers, and how far two of them are apart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 5e-3, "int8": 5e-2}
"""Most that two vectors of one row may differ, as a share of the largest number, by precision."""

Vectors = list[npt.NDArray[np.float64]]


def of(body: bytes) -> Vectors:
    """All vectors of an answer in Azure's shape, in order; those of rows that failed are absent."""
    records: Sequence[Mapping[str, Any]] = json.loads(body)
    return [
        np.array(record[name])
        for record in records
        for name in ("image_features", "text_features")
        if name in record
    ]


def difference(one: Vectors, other: Vectors) -> float:
    """The largest difference of two numbers over the largest number; inf for other shapes."""
    if [vector.shape for vector in one] != [vector.shape for vector in other]:
        return math.inf
    return max(
        (
            float(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max()))
            for a, b in zip(one, other, strict=True)
        ),
        default=0.0,
    )
