"""What tests of packages and of the wheel compare with."""

from __future__ import annotations

import numpy as np
import pytest

from score import Embedder, Row


@pytest.fixture(scope="session")
def wanted() -> np.ndarray:
    """The vector of "a cat"."""
    (record,) = Embedder.load().embed([Row(text="a cat")])
    assert record.text_features is not None
    return record.text_features
