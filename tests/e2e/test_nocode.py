"""Azure's no-code deployment: its script, not ours, over the MLflow folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from score.core.embedder import Embedder
from tests.contract.test_contract import CELL, IMAGE, TEXT, table
from tests.support.surfaces import ROOT, Azure

pytestmark = pytest.mark.process


def test_good_requests_work_under_a_script_of_azures_kind(
    tmp_path: Path, embedder: Embedder
) -> None:
    (tmp_path / "clip").symlink_to(ROOT)
    server = Azure("score/deploy/simulate/nocode_online.py", AZUREML_MODEL_DIR=str(tmp_path))
    try:
        server.wait()
        records = server.ask(table([[CELL, ""], ["", "a cat"]])).records or []
        assert [set(record) for record in records] == [IMAGE, TEXT]
        alone = embedder.embed_text("a cat")
        np.testing.assert_allclose(
            records[1]["text_features"], alone, atol=1e-5 * np.abs(alone).max()
        )
        normalised = server.ask(table([["", "a cat"]], normalize=True)).records or []
        assert abs(sum(x * x for x in normalised[0]["text_features"]) - 1) < 1e-5
        # A row has one answer: a list in it is no column.
        mistaken = server.post(json.dumps(table([[["a", "b"]]], ("text",))).encode())
        assert mistaken.status_code == 500
    finally:
        server.stop()
