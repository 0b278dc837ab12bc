"""MLflow's scoring server: `/invocations` with its JSON and CSV bodies, and its pages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import Record
from score.dialects import schemas
from score.dialects.base import (
    BAD_RECORD,
    JSON,
    Call,
    Message,
    ModelFacts,
    Page,
    Refusal,
    Reply,
    Route,
)
from score.dialects.schemas import Bounds, Schema
from score.errors import UnsupportedType
from score.tables.csv_body import body_rows
from score.wording.quoting import quoted

CSV = "text/csv"


def parse(message: Message) -> Call:
    """JSON with any of MLflow's keys or `input_data`, or CSV with a header. Raises RequestError."""
    if message.media_type == CSV:
        rows = itertools.islice(body_rows(message.body), message.most_rows + 1)
        return Call([*rows], Params(), render)
    if message.media_type not in ("", JSON, "application/x-www-form-urlencoded"):
        raise UnsupportedType(
            f"{quoted(message.media_type)} is not read here; send {JSON} or {CSV}"
        )
    request = wire.parse(message.body, message.most_rows)
    return Call(request.rows, request.params, render)


def render(records: Sequence[Record], model: ModelFacts) -> object:
    """`{"predictions": […]}`."""
    return {"predictions": [wire.content(record) for record in records]}


def refuse(refusal: Refusal) -> Reply:
    """`{"error_code", "message"}`, and the contract's error beside it. MLflow has no 422."""
    codes = {
        404: "RESOURCE_DOES_NOT_EXIST",
        500: "INTERNAL_ERROR",
        503: "TEMPORARILY_UNAVAILABLE",
    }
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    content = {
        "error_code": codes.get(refusal.status, "INVALID_PARAMETER_VALUE"),
        "message": refusal.message,
        "error": {**error, "rows": list(refusal.rows)},
    }
    return Reply(400 if refusal.status == 422 else refusal.status, content)


def _ok(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, {"status": "ok"})


def _schema(bounds: Bounds) -> Schema:
    return schemas.tables(bounds, *wire.TABLES)


INVOCATIONS = Route(
    path="/invocations",
    summary="MLflow's scoring server",
    parse=parse,
    refuse=refuse,
    schema=_schema,
    example={"dataframe_split": {"columns": ["text"], "data": [["a photo of a cat"]]}},
    answer={"predictions": [{"text_features": [0.42, 0.13, -0.07]}]},
    also=({"predictions": [{"image_features": [0.92, -0.13, 0.05]}, BAD_RECORD]},),
    takes=(JSON, CSV),
)
PAGES = (
    Page("/ping", "whether the server is ready", _ok, refuse, "ready"),
    Page("/health", "whether the server is ready", _ok, refuse, "ready"),
)
