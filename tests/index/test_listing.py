"""What `score search` prints: lines that are JSON, and a table that a terminal can show."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import pytest

from score.index.index import Hit
from score.index.listing import as_json, as_table, shown


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (float("nan"), None),
        (float("-inf"), None),
        (b"\0\xff", "AP8="),
        (decimal.Decimal("1.20"), "1.20"),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00+00:00"),
        (datetime.timedelta(1), "1 day, 0:00:00"),
        ({"a": [float("nan"), b"a"]}, {"a": [None, "YQ=="]}),
        ([("k", 1)], [["k", 1]]),
        ("\u2028\n<", "\u2028\n<"),
    ],
)
def test_every_value_becomes_json(value: Any, plain: Any) -> None:
    line = as_json(Hit(0.123456, {"v": value}))
    assert "\n" not in line
    said = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert said == {"score": 0.1235, "v": plain}


def test_a_column_of_the_scores_name_hides_nothing() -> None:
    assert json.loads(as_json(Hit(0.5, {"score": 7}))) == {"score": 0.5, "row.score": 7}


def test_a_table_is_aligned_and_cannot_forge_lines() -> None:
    hits = [
        Hit(0.5, {"id": "a", "text": "x" * 500}),
        Hit(-0.25, {"id": None, "text": "\x1b[31m\nscore"}),
    ]
    lines = as_table(hits)
    assert len(lines) == 3
    assert lines[1] == f"0.5000   a   {'x' * 39}…"
    assert lines[2].startswith("-0.2500      \\x1b[31m\\nscore")
    assert as_table([]) == ["no row was found"]


def test_a_huge_value_is_cut_before_it_is_shown() -> None:
    assert shown("é" * 10**7, 5) == "éééé…"
    assert shown(b"a" * 10**7, 5) == '"YWF…'
    assert shown([1] * 10**6, 5) == "[1, …"
