"""Weaviate's module multi2vec-clip: the inference container that it calls."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import Record, Row
from score.dialects import schemas
from score.dialects.base import Call, Message, ModelFacts, Page, Reply, Route, refuse_plainly
from score.dialects.fields import Fields
from score.dialects.schemas import Bounds, Schema
from score.dialects.vectors import vector_of
from score.errors import BadField


def parse(message: Message) -> Call:
    """`{"texts": […], "images": […]}`, either of which may be missing. Raises RequestError.

    Vectors are as the model makes them, as the module's own container answers.
    """
    fields = Fields(message.json())
    texts, images = _cells(fields, "texts"), _cells(fields, "images")
    fields.end()
    rows = [*(Row(text=text) for text in texts), *(Row(image=image) for image in images)]
    return Call(rows, Params(), functools.partial(_answer, len(texts)))


def _cells(fields: Fields, name: str) -> list[object]:
    cells = fields.take(name)
    if cells is None or isinstance(cells, list):
        return cells or []
    raise BadField(f"{name!r} must be a list, not {wire.kind(cells)}", name)


def _answer(texts: int, records: Sequence[Record], model: ModelFacts) -> object:
    vectors = [vector_of(record) for record in records]
    return {"textVectors": vectors[:texts], "imageVectors": vectors[texts:]}


def _ready(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(204, "")


def _meta(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, {"model": models[0].name, "dimension": models[0].dimension})


def _schema(bounds: Bounds) -> Schema:
    cells = {"texts": schemas.A_TEXT, "images": schemas.IMAGE_TEXT}
    return schemas.closed(
        {name: schemas.nullable(schemas.listed(cell, bounds.rows)) for name, cell in cells.items()}
    )


VECTORIZE = Route(
    path="/vectorize",
    summary="Weaviate's multi2vec-clip",
    parse=parse,
    refuse=refuse_plainly,
    schema=_schema,
    example={"texts": ["a photo of a cat"], "images": []},
    answer={"textVectors": [[0.42, 0.13, -0.07]], "imageVectors": []},
)
PAGES = (
    Page("/meta", "the model, for Weaviate", _meta, refuse_plainly),
    Page("/.well-known/live", "whether it is up, for Weaviate", _ready, refuse_plainly, "live"),
    Page(
        "/.well-known/ready", "whether it is ready, for Weaviate", _ready, refuse_plainly, "ready"
    ),
)
