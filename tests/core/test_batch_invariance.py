"""A row's vector does not depend on its company: alone, or beside concurrent callers' rows.

In fp32 within 1e-5 of its largest number; in lower precisions to a cosine of 0.99999. These are the
precisions that each engine has on this machine's CPU, with a model of random weights.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from score.contract.rows import Record, Row
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.model.zeroshot import cosine
from score.settings import Settings
from tests.support.images import random_image

pytestmark = pytest.mark.process  # OpenVINO starts one when it is imported

LEAST_COSINE = {"bf16": 0.99999, "fp16": 0.99999}
CASES = [
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("torch", "fp16"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
]
ROWS = [Row(random_image(seed), "word " * (1 + 7 * seed % 40)) for seed in range(24)]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def model(request: Any, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    engine, precision = request.param
    if engine == "openvino":
        pytest.importorskip("openvino")
    cache = str(tmp_path_factory.mktemp("cache"))
    try:
        return Embedder.load(
            tiny,
            Settings(engine=engine, precision=precision, device="cpu", cache=cache, max_wait=600),
        )
    except (ModelError, RuntimeError) as error:
        pytest.skip(f"not computed here: {error}")


def alike(one: Record, other: Record, precision: str) -> None:
    for name in ("image_features", "text_features"):
        vector, reference = getattr(one, name), getattr(other, name)
        if precision == "fp32":
            assert np.abs(vector - reference).max() <= 1e-5 * np.abs(reference).max()
        else:
            assert cosine(vector, reference) >= LEAST_COSINE[precision]


def test_a_row_has_its_vectors_in_any_company(model: Embedder) -> None:
    precision = parts_of(model).encoder.engine.precision
    alone = [model.answer([row])[0] for row in ROWS]
    for record, reference in zip(model.answer(ROWS), alone, strict=True):
        alike(record, reference, precision)
    with ThreadPoolExecutor(12) as pool:
        singles = list(pool.map(lambda row: model.answer([row])[0], ROWS))
        shifted = [ROWS[at:] + ROWS[:at] for at in range(0, 24, 3)]
        answers = list(pool.map(model.answer, shifted))
    for record, reference in zip(singles, alone, strict=True):
        alike(record, reference, precision)
    for at, answer in zip(range(0, 24, 3), answers, strict=True):
        for record, reference in zip(answer, alone[at:] + alone[:at], strict=True):
            alike(record, reference, precision)


def test_company_does_not_mix(model: Embedder) -> None:
    """The comparison above would also pass if all vectors were the same."""
    records = model.answer(ROWS[:2])
    for name in ("image_features", "text_features"):
        assert cosine(getattr(records[0], name), getattr(records[1], name)) < 0.99999
