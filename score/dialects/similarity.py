"""Cosine similarities, of this project's own: `POST /v1/similarity`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from score.contract.params import Params
from score.contract.rows import Record
from score.dialects import azure, schemas
from score.dialects.base import Call, Message, ModelFacts, Route
from score.dialects.fields import Fields
from score.dialects.items import rows_of
from score.dialects.schemas import Bounds, Schema
from score.dialects.vectors import vector_of
from score.errors import BadField, RequestTooLarge

_MOST_CELLS = 1_000_000  # of the matrix: 20 MB of JSON


def parse(message: Message) -> Call:
    """`{"a": […], "b": […]}`; without `b`, `a` is compared with itself. Raises RequestError."""
    fields = Fields(message.json())
    model, first, second = fields.text("model"), fields.take("a"), fields.take("b")
    fields.end()
    if first is None:
        raise BadField("the body needs 'a', a list of texts and images", "a")
    rows = rows_of(first, "a")
    others = [] if second is None else rows_of(second, "b")
    if len(rows) * len(others or rows) > _MOST_CELLS:
        raise RequestTooLarge(f"more than {_MOST_CELLS:,} similarities; send shorter lists")
    render = functools.partial(_answer, len(rows))
    return Call([*rows, *others], Params(normalize=True), render, model, number=0)


def _answer(first: int, records: Sequence[Record], model: ModelFacts) -> object:
    vectors = np.array([vector_of(record) for record in records], np.float64)
    matrix = vectors[:first] @ (vectors[first:] if len(records) > first else vectors).T
    return {"object": "similarity", "data": [*np.clip(matrix, -1, 1)], "model": model.name}


def _schema(bounds: Bounds) -> Schema:
    one = schemas.item(bounds)
    others = {"b": schemas.nullable(one), "model": schemas.nullable(schemas.STRING)}
    return schemas.closed({"a": one, **others}, ["a"])


SIMILARITY = Route(
    path="/v1/similarity",
    summary="cosine similarities of two lists of texts and images",
    parse=parse,
    refuse=azure.refuse,
    schema=_schema,
    example={"a": ["a photo of a cat"], "b": ["a cat", "a boat"]},
    answer={"object": "similarity", "data": [[0.93, 0.41]], "model": "clip"},
)
