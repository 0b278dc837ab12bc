"""The smoke test after a deployment: whether an answer holds the vectors that were asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from score.errors import AzureError
from score.type_aliases import Json

_FEATURES = {"image": "image_features", "text": "text_features"}


def problems(request: Json, answer: str, dimension: int) -> list[str]:
    """What is wrong with an answer, a sentence each. `dimension`: length of the model's vectors.

    `answer`: a JSON list, or that list as a JSON string, as `az ml online-endpoint invoke` prints
    it. Raises AzureError for a request that is no `input_data` table.
    """
    expected = list(_expected(request))
    try:
        records = json.loads(answer)
        records = json.loads(records) if isinstance(records, str) else records
    except ValueError:
        return [f"the answer is no JSON: {answer.strip()[:300]!r}"]
    if not isinstance(records, list):
        return [f"the answer is no list of records: {json.dumps(records)[:300]}"]
    if len(records) != len(expected):
        return [f"{len(expected)} rows were asked, {len(records)} answered"]
    return [
        f"row {index}: {problem}"
        for index, (wanted, record) in enumerate(zip(expected, records, strict=True))
        for problem in _record(wanted, record, dimension)
    ]


def _expected(request: Json) -> Iterator[list[str]]:
    """The names of the vectors that each row asks for."""
    table = request.get("input_data")
    if not isinstance(table, dict) or not {"columns", "data"} <= table.keys():
        raise AzureError("the request has no input_data of columns and data")
    for row in table["data"]:
        cells = zip(table["columns"], row, strict=True)
        yield [_FEATURES[name] for name, cell in cells if name in _FEATURES and cell]


def _record(wanted: Sequence[str], record: Any, dimension: int) -> Iterator[str]:
    if not isinstance(record, dict):
        yield f"{record!r} is no record"
        return
    if "error" in record:
        yield f"error {json.dumps(record['error'])[:300]}"
        return
    for name in wanted:
        vector = record.get(name)
        if not isinstance(vector, list):
            yield f"it has no {name}"
        elif len(vector) != dimension:
            yield f"{name} has {len(vector)} numbers, and the model's vectors have {dimension}"
        elif not all(isinstance(one, int | float) and math.isfinite(one) for one in vector):
            yield f"{name} holds something else than finite numbers"
        elif not any(vector):
            yield f"{name} is all zeros"
