"""The notebooks run from top to bottom against this machine, as they come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.surfaces import ROOT

NOTEBOOKS = sorted((ROOT / "samples/notebooks").glob("*.ipynb"))


def code(file: Path) -> list[str]:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_they_are_three() -> None:
    assert [file.stem for file in NOTEBOOKS] == ["batch", "online", "retrieval"]


@pytest.mark.process
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("SCORE_ALLOW_HOSTS", "")  # so that the notebook's value is undone
    monkeypatch.delenv("SCORE_ALLOW_HOSTS")
    space: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(code(file)):
        try:
            exec(compile(cell, f"{file.name}[{number}]", "exec"), space)
        finally:
            said = "".join(capfd.readouterr())
            if number == 0:
                printed = ""
            printed += said
    expected = {
        "online": ["real-time   fits", "200 [{", "apple", "bad_base64", "422 {"],
        "batch": ["8 machines", "7 files: 7 succeeded", "68 rows", "not_an_image"],
        "retrieval": ["67 images"],
    }[file.stem]
    for text in expected:
        assert text in printed, printed


def test_they_carry_no_output() -> None:
    for file in NOTEBOOKS:
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs")
