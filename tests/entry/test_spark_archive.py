"""The zip of the package's code that Spark's workers without it import. (Spark: test_spark.py.)"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from score import spark


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder `score` as a wheel installs it, with the embedded model in it."""
    code = tmp_path / "site-packages" / "score"
    for name in ("spark.py", "entry/model.py", "embedded/model/x", "__pycache__/spark.pyc"):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text("")
    monkeypatch.setattr(spark, "_ROOT", code.parent)
    spark._zipped.cache_clear()
    yield code
    spark._zipped.cache_clear()


def test_the_zip_holds_the_code_without_the_model(installed: Path) -> None:
    names = {name for name in zipfile.ZipFile(spark._zipped()).namelist() if not name.endswith("/")}
    assert names == {"score/spark.py", "score/entry/model.py"}
    assert (installed / "embedded/model/x").exists()
