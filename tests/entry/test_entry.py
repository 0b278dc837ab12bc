"""Which model the entry scripts load, and with which settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from score.contract.limits import check_body_size, check_row_count
from score.core.embedder import Embedder
from score.entry import model
from score.errors import ModelError, RequestTooLarge, SettingError
from score.folder.model_folder import EMBEDDED


def test_the_mounted_model_goes_before_the_embedded_one(tiny: Path) -> None:
    assert model.model_folder({}) == EMBEDDED
    assert model.model_folder({"AZUREML_MODEL_DIR": ""}) == EMBEDDED
    environ = {"AZUREML_MODEL_DIR": str(tiny), "SCORE_BATCH_SIZE": "3", "SCORE_PRECISION": "fp32"}
    embedder = model.load(environ)
    assert embedder.settings.batch_size == 3
    embedded = model.load({"SCORE_PRECISION": "fp32"})
    vectors = [each.embed_text("a cat") for each in (embedder, embedded, Embedder.load(tiny))]
    assert not np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_a_folder_goes_before_the_mounted_one(tiny: Path) -> None:
    environ = {"AZUREML_MODEL_DIR": "/gone", "SCORE_PRECISION": "fp32"}
    assert model.load(environ, tiny).dimension
    with pytest.raises(ModelError, match="/gone"):
        model.load(environ)
    with pytest.raises(SettingError):
        model.load({"SCORE_BATCH_SIZE": "many"})


def test_limits_are_inclusive() -> None:
    check_row_count(3, 3)
    check_body_size(3, 3)
    with pytest.raises(RequestTooLarge, match="more than 3 rows"):
        check_row_count(4, 3)
    with pytest.raises(RequestTooLarge, match="larger than 3 bytes"):
        check_body_size(4, 3)
