"""JSON that answers and tables are written in."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from score.contract import wire


def test_numbers_are_read_back_as_the_same_floats() -> None:
    numbers = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    extremes = np.array([0, 1e-45, -1e-38, 1e-5, 3.4028235e38, 16777216], np.float32)
    for vector in (numbers, extremes):
        assert json.loads(wire.dump({"vector": vector.tolist()})) == {"vector": vector.tolist()}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "place", ["alone", "in a vector", "in a matrix", "among others", "in a tuple"]
)
def test_what_json_does_not_have_is_refused(number: float, place: str) -> None:
    payload = {
        "alone": number,
        "in a vector": [{"image_features": [0.5, number]}],
        "in a matrix": {"similarities": [[0.5], [number]]},
        "among others": ["a", None, number],
        "in a tuple": {"probs": (0.5, number)},
    }[place]
    with pytest.raises(ValueError, match="neither NaN nor infinity"):
        wire.dump(payload)


@pytest.mark.parametrize("pair", [(math.inf, -math.inf), (math.nan, math.inf)])
def test_infinities_that_cancel_each_other_are_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="neither NaN nor infinity"):
        wire.dump({"vector": [*pair, 0.5]})


def test_numbers_whose_sum_is_infinite_are_written() -> None:
    payload = {"vector": [1e308, 1e308, -1e308]}
    assert json.loads(wire.dump(payload)) == payload


def test_what_orjson_refuses_is_written_all_the_same() -> None:
    payload = {"message": "\ud800 is half of a pair", "index": 2**70, "vector": [0.5]}
    assert json.loads(wire.dump(payload)) == payload
