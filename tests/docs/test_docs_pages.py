"""What the pages on security and architecture name is there: tests, modules, settings."""

from __future__ import annotations

import re

import pytest

from score.settings import names
from tests.support.surfaces import ROOT

DOCS = ROOT / "docs"


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_tests_that_show_each_promise_exist() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", text_of("security.md")))
    assert len(named) > 10
    assert named <= {file.name for file in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("name", ["security.md", "architecture.md"])
def test_settings_that_a_page_names_exist(name: str) -> None:
    named = set(re.findall(r"SCORE_[A-Z_]+", text_of(name)))
    assert named <= {f"SCORE_{one.upper()}" for one in names()}


def test_modules_that_the_architecture_names_exist() -> None:
    named = set(re.findall(r"`(score/[\w/.]*)`", text_of("architecture.md")))
    named |= set(re.findall(r"\]\(\.\./(score/[\w/.]*)\)", text_of("architecture.md")))
    assert len(named) > 40
    gone = sorted(path for path in named if not (ROOT / path).exists())
    assert not gone, f"docs/architecture.md names {', '.join(gone)}"
