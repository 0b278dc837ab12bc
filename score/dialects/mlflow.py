"""MLflow's scoring server: `/invocations` with its JSON and CSV bodies, and its pages."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import Record
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
from score.errors import UnsupportedType
from score.tables.csv_reader import CsvRows

CSV = "text/csv"


def parse(message: Message) -> Call:
    """JSON with any of MLflow's keys or `input_data`, or CSV with a header. Raises RequestError."""
    if message.media_type == CSV:
        # Bytes that are not UTF-8 become surrogates, which fail their row, not the request.
        text = io.StringIO(message.body.decode("utf-8-sig", "surrogateescape"), newline="")
        lines = itertools.islice(CsvRows(text, "the body"), message.most_rows + 1)
        return Call([line.row for line in lines], Params(), render)
    if message.media_type not in ("", JSON, "application/x-www-form-urlencoded"):
        raise UnsupportedType(f"{message.media_type[:80]!r} is not read here; send {JSON} or {CSV}")
    request = wire.parse(message.body)
    return Call(request.rows, request.params, render)


def render(records: Sequence[Record], model: ModelFacts) -> object:
    """`{"predictions": […]}`."""
    return {"predictions": [wire.render(record) for record in records]}


def refuse(refusal: Refusal) -> Reply:
    """`{"error_code", "message"}`, and the contract's error beside it. MLflow has no 422."""
    codes = {404: "RESOURCE_DOES_NOT_EXIST", 500: "INTERNAL_ERROR"}
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    content = {
        "error_code": codes.get(refusal.status, "INVALID_PARAMETER_VALUE"),
        "message": refusal.message,
        "error": {**error, "rows": list(refusal.rows)},
    }
    return Reply(400 if refusal.status == 422 else refusal.status, content)


def _ok(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, {"status": "ok"})


INVOCATIONS = Route(
    path="/invocations",
    summary="MLflow's scoring server",
    parse=parse,
    refuse=refuse,
    example={"dataframe_split": {"columns": ["text"], "data": [["a photo of a cat"]]}},
    answer={"predictions": [{"text_features": [0.42, 0.13, -0.07]}]},
    also=({"predictions": [{"image_features": [0.92, -0.13, 0.05]}, BAD_RECORD]},),
    takes=(JSON, CSV),
)
PAGES = (
    Page("/ping", "whether the server is ready", _ok, refuse, "ready"),
    Page("/health", "whether the server is ready", _ok, refuse, "ready"),
)
