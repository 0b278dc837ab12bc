"""Zero-shot classification, of this project's own: `POST /v1/classify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import IMAGE, TEXT, Record, Row
from score.dialects import azure, schemas, uploads
from score.dialects.base import FORM, JSON, RED_SQUARE, Call, Message, ModelFacts, Route
from score.dialects.fields import Fields
from score.dialects.items import rows_of
from score.dialects.schemas import Bounds, Schema
from score.errors import BadField


def parse(message: Message) -> Call:
    """Images and texts with `labels`, as JSON or a form. Raises RequestError."""
    if uploads.is_upload(message):
        rows, fields = uploads.read(message, "model", "labels", "ontology", "confidence")
    else:
        fields = Fields(message.json())
        rows = _rows(fields)
    model = fields.text("model")
    labels, confidence = _labels(fields), fields.take("confidence")
    params = Params.parse({"labels": labels, "confidence": 0 if confidence is None else confidence})
    fields.end()
    return Call(rows, params, _answer, model, classify_texts=True, number=0)


def _rows(fields: Fields) -> list[Row]:
    """`image` or `text`, one or a list, or `input`, a list of both."""
    name, value = fields.one_of(IMAGE, TEXT, "input")
    if name == "input":
        return rows_of(value, name)
    cells = value if isinstance(value, list) else [value]
    if not cells:
        raise BadField(f"{name!r} is an empty list", name)
    return [Row(image=cell) if name == IMAGE else Row(text=cell) for cell in cells]


def _labels(fields: Fields) -> object:
    name, value = fields.one_of("labels", "ontology")
    if isinstance(value, (list, dict)):
        return value
    raise BadField(f"{name!r} must be a list or an object, not {wire.kind(value)}", name)


def _answer(records: Sequence[Record], model: ModelFacts) -> object:
    data = [{"index": index, "labels": scores(record)} for index, record in enumerate(records)]
    return {"object": "list", "data": data, "model": model.name}


def scores(record: Record) -> list[dict[str, Any]]:
    """A record's labels with their probabilities, the most probable first."""
    pairs = zip(record.labels or (), record.probs or (), strict=True)
    return [{"label": label, "score": prob} for label, prob in pairs]


def _schema(bounds: Bounds) -> Schema:
    cells: dict[str, Schema] = {
        name: {"anyOf": [one, schemas.listed(one, bounds.rows, 1), {"type": "null"}]}
        for name, one in ((IMAGE, schemas.IMAGE_TEXT), (TEXT, schemas.A_TEXT))
    }
    rows = {**cells, "input": schemas.nullable(schemas.item(bounds))}
    others = {name: schemas.nullable(part) for name, part in _others(bounds).items()}
    return schemas.closed(
        {**rows, **others},
        allOf=[
            {"oneOf": schemas.exactly_one(IMAGE, TEXT, "input")},
            {"oneOf": schemas.exactly_one("labels", "ontology")},
        ],
    )


def _others(bounds: Bounds) -> dict[str, Schema]:
    """What there is beside images and texts."""
    labels = {name: schemas.labels(bounds) for name in ("labels", "ontology")}
    return {"model": schemas.STRING, **labels, "confidence": schemas.PROBABILITY}


def _form(bounds: Bounds) -> Schema:
    one_of_two = schemas.exactly_one("labels", "ontology")
    return {**schemas.form(bounds, _others(bounds)), "oneOf": one_of_two}


CLASSIFY = Route(
    path="/v1/classify",
    summary="zero-shot classification of images and texts",
    parse=parse,
    refuse=azure.refuse,
    schema=_schema,
    form=_form,
    example={"image": RED_SQUARE, "labels": {"red": "a red square", "blue": "a blue square"}},
    answer={
        "object": "list",
        "data": [
            {
                "index": 0,
                "labels": [{"label": "red", "score": 0.98}, {"label": "blue", "score": 0.02}],
            }
        ],
        "model": "clip",
    },
    takes=(JSON, FORM),
)
