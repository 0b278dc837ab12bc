"""Azure ML's scoring path, `/score`, and uploads to it.

A body is Azure's table, a record of Azure AI Search, a form or an image. Errors are the contract's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import Record
from score.dialects import azure_search, schemas, uploads
from score.dialects.base import (
    BAD_RECORD,
    FORM,
    IMAGES,
    JSON,
    RED_SQUARE,
    Call,
    Message,
    ModelFacts,
    Refusal,
    Reply,
    Route,
)
from score.dialects.schemas import Bounds, Schema


def parse(message: Message) -> Call:
    """Any body that `/score` takes. Raises RequestError."""
    if uploads.is_upload(message):
        upload = uploads.read(message, "params")
        params = Params.parse(upload.fields.take("params"))
        upload.fields.end()
        return Call(upload.rows, params, render)
    content = message.json(" (CSV and parquet are for MLflow's server)")
    if azure_search.recognises(content):
        return azure_search.call_of(content)
    request = wire.request_of(content)
    return Call(request.rows, request.params, render)


def render(records: Sequence[Record], model: ModelFacts) -> object:
    """A list of records."""
    return [wire.content(record) for record in records]


def refuse(refusal: Refusal) -> Reply:
    """`{"error": {"code", "message", "rows"}}`."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    return Reply(refusal.status, {"error": {**error, "rows": list(refusal.rows)}})


def _schema(bounds: Bounds) -> Schema:
    search = azure_search.schema(bounds)["anyOf"]
    return {"anyOf": [schemas.tables(bounds, *wire.TABLES), *search]}


def _form(bounds: Bounds) -> Schema:
    return schemas.form(bounds, {wire.PARAMS: schemas.params(bounds)})


_RECORDS = {
    "values": [
        {
            "recordId": "0",
            "data": {"vector": [0.42, 0.13, -0.07]},
            "errors": None,
            "warnings": None,
        }
    ]
}
_FAILED: dict[str, Any] = {
    "values": [{"recordId": "0", "data": {}, "errors": None, "warnings": None}]
}
_VECTOR = {"vector": [0.42, 0.13, -0.07]}

SCORE = Route(
    path="/score",
    summary="Azure ML's real-time endpoint",
    parse=parse,
    refuse=refuse,
    schema=_schema,
    form=_form,
    example={
        "input_data": {
            "columns": ["image", "text"],
            "index": [0, 1],
            "data": [[RED_SQUARE, ""], ["", "a photo of a cat"]],
        },
        "params": {"normalize": True},
    },
    answer=[{"image_features": [0.92, -0.13, 0.05]}, {"text_features": [0.42, 0.13, -0.07]}],
    also=([BAD_RECORD], _RECORDS, _FAILED, _VECTOR),
    takes=(JSON, FORM, IMAGES),
)
SEARCH = Route(
    path="/azure-ai-search",
    summary="Azure AI Search's custom vectorizer and skills (also at /score)",
    parse=azure_search.parse,
    refuse=refuse,
    schema=azure_search.schema,
    example={"values": [{"recordId": "0", "data": {"text": "a photo of a cat"}}]},
    answer=_RECORDS,
    also=(_FAILED, _VECTOR),
)
