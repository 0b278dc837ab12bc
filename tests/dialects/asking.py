"""Requests to the server under test."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
import requests

from score.dialects import openapi, table
from score.dialects.base import Refusal, Route
from score.errors import RowProblem

NAME = "clip-endpoints-emoji"
"""The name of the embedded model."""


def path_of(route: Route) -> str:
    return route.path.replace("{model:path}", NAME)


def post(base: str, path: str, content: Any, kind: str = "application/json") -> requests.Response:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return requests.post(f"{base}{path}", data, headers={"Content-Type": kind}, timeout=60)


def refused(base: str, path: str, content: Any, status: int = 400) -> Any:
    """The body of a refusal, which has the shape of the path's dialect."""
    response = post(base, path, content)
    assert response.status_code == status, response.text[:500]
    check_refusal(path, response)
    return response.json()


def check_refusal(path: str, response: requests.Response) -> None:
    shape = table.shape_of(path)
    problems = [
        RowProblem(index=0, column=column, code="c", message="m", retryable=False)
        for column in ("text", None)
    ]
    examples = [
        shape(Refusal(400, "code", "message", "field")).content,
        shape(Refusal(400, "code", "message")).content,
        shape(Refusal(422, "code", "message", None, problems)).content,
    ]
    jsonschema.validate(response.json(), openapi.schema_of(*examples))
    assert "Traceback" not in response.text


ROUTES = table.ROUTES
IDS = [route.path for route in ROUTES]


def check_alike(actual: Any, wanted: Any) -> None:
    """Fails for values that differ; numbers may, by the rounding of passes of other sizes."""
    if isinstance(wanted, dict):
        assert set(actual) == set(wanted)
        for key, value in wanted.items():
            check_alike(actual[key], value)
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], float):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)
    elif isinstance(wanted, list):
        assert len(actual) == len(wanted)
        for one, other in zip(actual, wanted, strict=True):
            check_alike(one, other)
    else:
        assert actual == (pytest.approx(wanted, abs=1e-5) if isinstance(wanted, float) else wanted)
