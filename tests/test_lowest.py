"""`.ci/lowest.py`: the constraints with which `make lowest` installs."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci/lowest.py"
MODULE: dict[str, Any] = runpy.run_path(str(SCRIPT))
OPTIONAL: dict[str, list[str]] = MODULE["PROJECT"]["optional-dependencies"]


def lowest(*lines: str) -> list[str]:
    return list(MODULE["lowest"](map(Requirement, lines)))


def test_of_several_bounds_the_highest_counts() -> None:
    assert lowest("numpy>=1.9", "numpy>=1.26,<3", "numpy>=1.10") == ["numpy==1.26"]


def test_names_may_be_spelled_in_several_ways() -> None:
    assert lowest(
        "PyYAML>=6", "pyyaml>=5", "typing_extensions>=4.12", "typing-extensions>=4.2"
    ) == [
        "pyyaml==6",
        "typing-extensions==4.12",
    ]


def test_markers_are_kept() -> None:
    line = "backports.zstd>=1.1; python_version < '3.14'"
    (kept,) = lowest(line)
    assert kept == 'backports-zstd==1.1; python_version < "3.14"'


def test_a_release_that_is_excluded_is_no_lower_bound() -> None:
    assert lowest("tokenizers!=0.23.1,>=0.21,<1") == ["tokenizers==0.21"]


def test_pytorch_is_left_out() -> None:
    assert lowest("torch>=2.6", "torchx>=1") == ["torchx==1"]


@pytest.mark.parametrize("line", ["numpy", "numpy<3", "numpy!=2"])
def test_a_requirement_without_a_lower_bound_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="has no lower bound"):
        lowest(line)


@pytest.mark.parametrize("extra", sorted({*OPTIONAL} - {"dev"}))
def test_every_requirement_that_users_install_has_a_lower_bound(extra: str) -> None:
    wanted = list(MODULE["requirements"]([extra]))
    assert len(wanted) > len(MODULE["PROJECT"]["dependencies"])
    for requirement in wanted:
        assert MODULE["bound"](requirement)


def test_extras_that_an_extra_names_count() -> None:
    names = {requirement.name for requirement in MODULE["requirements"](["int8"])}
    assert {"nncf", "openvino", "transformers", "numpy"} <= names
    assert MODULE["PROJECT"]["name"] not in names


@pytest.mark.process
def test_it_prints_what_pip_reads() -> None:
    printed = subprocess.run(
        [sys.executable, SCRIPT, "int8,serve"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert printed == sorted(printed)
    assert {Requirement(line).name for line in printed} >= {"nncf", "uvicorn", "numpy"}
    assert all("==" in line for line in printed)


def test_what_is_held_back_besides_is_no_requirement_of_ours() -> None:
    """A constraint in both files could contradict the lower bound."""
    lines = (ROOT / ".ci/transitive.txt").read_text(encoding="utf-8").splitlines()
    held = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    users = sorted({*OPTIONAL} - {"dev"})
    ours = {requirement.name for requirement in MODULE["requirements"](users)}
    assert held
    assert not ours & {requirement.name for requirement in held}
