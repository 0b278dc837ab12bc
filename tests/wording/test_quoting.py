"""Messages hold little of what came, however much that was."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from score.contract.labels import Labels
from score.contract.params import Params
from score.contract.rows import check_columns
from score.errors import BadBase64, RowsFailed, ScoreError, UnknownModel
from score.folder.architecture import Architecture
from score.settings import Settings, names
from score.texts.cleaning import Cleaning
from score.wording.quoting import LONGEST, listed, quoted, shown
from score.wording.suggestions import nearest, suggestion

BIG = "x" * 2_000_000
LONGEST_MESSAGE = 1_000


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("cat", "'cat'"),
        ("it's", '"it\'s"'),
        ("", "''"),
        ("a\nb\x1b", "'a\\nb\\x1b'"),
        ("\ud800", "'\\ud800'"),
        ("x" * LONGEST, repr("x" * LONGEST)),
        (7, "7"),
        (0.5, "0.5"),
        (float("nan"), "nan"),
        (True, "True"),
        (None, "None"),
        pytest.param(10**5000, "int", id="huge"),
        ([BIG], "list"),
        ({BIG: 1}, "dict"),
        (b"x", "bytes"),
    ],
)
def test_a_value_in_a_message(value: object, told: str) -> None:
    assert quoted(value) == told


@pytest.mark.parametrize("letter", ["x", "\n", "\x00", "'", "\\", "\ud800", "\U0010ffff", "猫"])
def test_a_long_value_is_cut(letter: str) -> None:
    told = quoted(letter * 1_000)
    assert len(told) == LONGEST + 2
    assert told.isprintable()
    assert (told[0], told[-2:]) == (told[-1], f"…{told[0]}")
    assert len(quoted(letter * 1_000, 40)) == 42


def test_a_list_in_a_message() -> None:
    assert listed([]) == "none"
    assert listed(["a", 1, None]) == "'a', 1, None"
    assert listed(map(str, range(10))).endswith("'9'")
    assert listed(map(str, range(11))).endswith("'9', …")
    assert len(listed([BIG] * 1_000)) < 500


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([224, 224.5, None, "a"], "[224, 224.5, None, 'a']"),
        ((1, [2]), "[1, list]"),
        ([], "[]"),
        ({}, "{}"),
        ({"height": 224, 1: "a\n"}, r"{'height': 224, 1: 'a\n'}"),
        ([0] * 11, "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0…]"),
        ("text", "'text'"),
    ],
)
def test_a_list_or_an_object_is_shown_by_its_first_values(value: object, told: str) -> None:
    assert shown(value) == told


@pytest.mark.parametrize("value", [["x" * 10**6] * 10**5, {"x" * 10**6: ["y"], "z": "y" * 10**6}])
def test_what_is_shown_is_short(value: object) -> None:
    assert len(shown(value)) <= LONGEST + 2


def test_what_is_cut_costs_nothing() -> None:
    big, many = "\0" * 50_000_000, dict.fromkeys(range(1_000_000))
    tracemalloc.start()
    try:
        for value in (big, [big], many):
            quoted(value)
        listed(many)
        suggestion(big, ["normalize"])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert nearest(big, ["normalize"]) is None


def settings(name: str, value: str) -> Callable[[], Any]:
    return lambda: Settings.from_env({f"SCORE_{name.upper()}": value})


REFUSALS: dict[str, Callable[[], Any]] = {
    **{
        f"param {name[:20]} {type(value).__name__}": partial(Params.parse, {name: value})
        for name in ("normalize", "truncate", "on_error", "labels", "confidence", BIG)
        for value in (BIG, [BIG], {BIG: BIG}, 10**5000)
    },
    "params": lambda: Params.parse(BIG),
    "label": lambda: Labels.parse([BIG]),
    "label twice": lambda: Labels.parse(["x" * 1_000] * 2),
    "prompt": lambda: Labels.parse({"a": [BIG]}),
    "labels": lambda: Labels.parse('{"a": 1, ' + BIG),
    "columns": lambda: check_columns([BIG] * 20),
    "spelling": lambda: check_columns(["\ufeff" + " " * 2_000_000 + "image"]),
    "model": lambda: (_ for _ in ()).throw(UnknownModel(BIG, ["a"])),
    "rows": lambda: (_ for _ in ()).throw(RowsFailed([(0, BadBase64(BIG))] * 20, 20)),
    "configuration": lambda: Architecture.from_config({"vision_config": {"num_channels": BIG}}),
    "cleaning": lambda: Cleaning.from_config({"text_cleaning": BIG}),
    "model_config": lambda: Settings.from_env({}, {BIG: "1"}),
    **{f"setting {name}": settings(name, BIG) for name in names()},
    "setting": settings(BIG, "1"),
}


def message_of(refused: Callable[[], Any]) -> str:
    try:
        refused()
    except ScoreError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", REFUSALS)
def test_no_message_and_no_line_of_the_log_is_long(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    message = message_of(REFUSALS[name])
    assert message or name.startswith("setting"), "it was taken"
    assert len(message) < LONGEST_MESSAGE
    assert all(len(line) < LONGEST_MESSAGE for line in caplog.messages)
