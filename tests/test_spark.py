"""A Spark worker's share, and, where PySpark and Java are, a session of Spark itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from score import spark
from score.embedder import Embedder
from tests.pictures import in_base64, picture
from tests.surfaces import ROOT


@pytest.fixture
def frames() -> list[pd.DataFrame]:
    one = pd.DataFrame({"id": [1, 2], "image": [in_base64(picture(1)), "%%%"], "text": ["a", ""]})
    two = pd.DataFrame({"id": [3], "image": [None], "text": ["a cat"]})
    return [one, two]


def test_a_share_keeps_its_columns_and_gains_vectors_and_errors(
    frames: list[pd.DataFrame], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark, "_loaded", lambda model: embedder)
    one, two = spark.embed(frames, "any")
    added = ["image_features", "text_features", "error_code", "error_message", "error_retryable"]
    assert list(one) == list(two) == ["id", "image", "text", *added]
    assert one["error_code"].tolist() == [None, "bad_base64"]
    assert one["id"].tolist() == [1, 2]
    np.testing.assert_allclose(two["text_features"][0], embedder.embed_text("a cat"), rtol=1e-5)
    assert two["image_features"][0] is None


@pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java")
def test_spark_runs_it_where_there_is_no_project(
    frames: list[pd.DataFrame], embedder: Embedder, tmp_path: Path
) -> None:
    """As Azure does: the entry script by its path, in a folder of its own."""
    pyspark = pytest.importorskip("pyspark")
    pd.concat(frames).to_parquet(tmp_path / "table.parquet")
    script = shutil.copytree(ROOT / "score", tmp_path / "code/score") / "spark.py"
    arguments = ["--table", "table.parquet", "--model", str(ROOT / "model"), "--output", "out"]
    search = str(Path(pyspark.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": search, "PYSPARK_PYTHON": sys.executable}
    subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=tmp_path,
        env=environment | {"PYSPARK_SUBMIT_ARGS": "--master local[2] pyspark-shell"},
        check=True,
    )
    result = pd.read_parquet(tmp_path / "out").sort_values("id", ignore_index=True)
    assert result["error_code"].tolist() == [None, "bad_base64", None]
    np.testing.assert_allclose(result["text_features"][2], embedder.embed_text("a cat"), atol=1e-4)
