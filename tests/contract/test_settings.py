"""Settings from the environment, params from a request, cells that are empty."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from score.contract.params import Params
from score.contract.rows import check_columns, is_empty
from score.errors import BadColumns, BadParams, SettingError
from score.settings import Settings, names


def test_defaults_are_those_of_an_empty_environment() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"SCORE_ROW_DEADLINE": "  "}) == Settings()


def test_every_setting_is_a_variable() -> None:
    texts = {
        "allow_hosts": "10.0.0.0/8, cdn.internal,", "ca_bundle": "/ca.pem", "device": "cpu",
        "precision": "bf16", "verify": "full", "log_level": "error", "exif_orientation": "true",
        "respect_robots_tag": "1",
        "engine": "torch", "decoding": "fast", "wide_pixels": "error",
        "proxy": "http://proxy.example:3128", "cors_origin": "https://a.example, *",
        "log_format": "text", "load_on_first_use": "yes",
    }  # fmt: skip
    environ = {f"SCORE_{name.upper()}": texts.get(name, "7") for name in names()}
    settings = Settings.from_env(environ)
    assert settings.allow_hosts == ("10.0.0.0/8", "cdn.internal")
    assert settings.cors_origin == ("https://a.example", "*")
    assert settings.exif_orientation is True
    assert settings.respect_robots_tag is True
    assert settings.wide_pixels == "error"
    assert settings.wide_pixels == "error"
    assert settings.precision == "bf16"
    changed = [name for name in names() if getattr(settings, name) != getattr(Settings(), name)]
    assert set(changed) >= set(names()) - {"device", "log_level"}


def test_a_models_own_settings_stand_behind_the_environments() -> None:
    config = {"precision": "bf16", "batch_size": 4, "allow_hosts": ["10.0.0.0/8", "cdn.internal"]}
    settings = Settings.from_env({"SCORE_BATCH_SIZE": "8"}, config)
    assert (settings.precision, settings.batch_size) == ("bf16", 8)
    assert settings.allow_hosts == ("10.0.0.0/8", "cdn.internal")
    with pytest.raises(SettingError, match="no setting 'precison', only allow_hosts, "):
        Settings.from_env({}, {"precison": "bf16"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("row_deadline", "soon"),
        ("row_deadline", "0"),
        ("row_deadline", "nan"),
        ("row_deadline", "inf"),
        ("max_pixels", "1e6"),
        ("max_pixels", "-1"),
        ("batch_size", "-1"),
        ("exif_orientation", "maybe"),
        ("precision", "int4"),
        ("engine", "tensorflow"),
        ("decoding", "lossy"),
        ("log_level", "loud"),
        ("allow_hosts", "10.0.0.0/33"),
        ("allow_hosts", "localhost:eighty"),
        ("allow_hosts", "localhost:65536"),
        ("allow_hosts", "localhost:"),
        ("allow_hosts", "::1:80:x"),
        ("fetch_ports", "0"),
        ("fetch_ports", "65536"),
        ("fetch_ports", "080"),
        ("fetch_ports", "http"),
        ("fetch_ports", "8000-8100"),
        ("allow_hosts", "http://localhost"),
    ],
)
def test_an_unusable_setting_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=f"SCORE_{name.upper()}.*{text}"):
        Settings.from_env({f"SCORE_{name.upper()}": text})


@pytest.mark.parametrize(
    "given",
    [
        {"normalise": True},
        {"normalize": 1},
        {"normalize": None},
        {"truncate": "start"},
        {"truncate": ["end"]},
        {"on_error": True},
        [],
        "normalize",
    ],
)
def test_unusable_params_are_refused(given: Any) -> None:
    with pytest.raises(BadParams):
        Params.parse(given)


def test_params_have_the_contracts_defaults() -> None:
    assert Params.parse(None) == Params.parse({}) == Params(False, "end", "raise")
    assert Params.parse({}, on_error="report").on_error == "report"
    assert Params.parse({"normalize": np.True_}).normalize is True


@pytest.mark.parametrize(
    "cell",
    [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", " \t\r\n", "<NA>", b"", "\u3000"],
)
def test_cells_that_ask_for_nothing(cell: object) -> None:
    assert is_empty(cell)


@pytest.mark.parametrize("cell", ["a", "nan", "None", "0", 0, False, 0.0, [], {}, b"\0"])
def test_cells_that_ask_for_something(cell: object) -> None:
    assert not is_empty(cell)


@pytest.mark.parametrize(
    "columns",
    [[], ["Image"], [" image"], ["TEXT", "image"], ["image", "image"], ["url"], [0, 1], [None]],
)
def test_columns_that_cannot_be_asked(columns: list[object]) -> None:
    with pytest.raises(BadColumns):
        check_columns(columns)


@pytest.mark.parametrize(
    "columns",
    [["image"], ["text", "id"], ["image", "text", "Image"], [0, "text"], ["text", "a", "a"]],
)
def test_columns_that_can(columns: list[object]) -> None:
    check_columns(columns)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"engine": "openvno"}, "engine must be auto, torch, openvino, not 'openvno'"),
        ({"verify": "of"}, "verify must be "),
        ({"decoding": "fats"}, "decoding must be exact, fast, not 'fats'"),
        ({"wide_pixels": "refrence"}, "wide_pixels must be "),
        ({"log_level": "loud"}, "log_level must be "),
        ({"precision": "fp12"}, "precision must be auto, fp32, bf16, fp16, int8, not 'fp12'"),
        ({"exif_orientation": "no"}, "exif_orientation must be true or false, not of type str"),
        ({"batch_size": "32"}, "batch_size must be a whole number, not of type str"),
        ({"batch_size": True}, "batch_size must be a whole number, not of type bool"),
        ({"batch_size": 1.5}, "batch_size must be a whole number, not of type float"),
        ({"connect_timeout": "3"}, "connect_timeout must be a number, not of type str"),
        ({"allow_hosts": "a.example"}, "allow_hosts must be a tuple, not of type str"),
        ({"allow_hosts": (1,)}, "allow_hosts must be a tuple of strings, not of 1"),
        ({"allow_hosts": ("a b",)}, "allow_hosts must hold host names, addresses or CIDR ranges"),
        ({"cors_origin": ("null",)}, "cors_origin must be like https://app.example or "),
        ({"cache": 3}, "cache must be a string, not of type int"),
    ],
)
def test_a_value_given_in_python_is_checked(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=re.escape(says)):
        Settings(**values)


@pytest.mark.parametrize(
    "origin",
    [
        *("https://a.example/", "a.example", "https://A.example", "null", "*.a.example", "7"),
        *("https://u@a", "ftp://a.example", "https://", "https://a.example:0", "https://["),
        "https://a b",
    ],
)
def test_an_origin_is_one_that_a_browser_sends(origin: str) -> None:
    with pytest.raises(SettingError, match="SCORE_CORS_ORIGIN must be like https:"):
        Settings.from_env({"SCORE_CORS_ORIGIN": f"https://b.example:8443, {origin}"})


def test_a_number_of_seconds_may_be_whole() -> None:
    assert Settings(connect_timeout=3).connect_timeout == 3
