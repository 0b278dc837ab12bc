"""Cohere's embeddings, version 2: `POST /v2/embed`."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from score.contract import wire
from score.contract.limits import NUMBER
from score.contract.params import Params
from score.contract.rows import Record, Row
from score.dialects import schemas
from score.dialects.base import Call, Message, ModelFacts, Refusal, Reply, Route
from score.dialects.fields import Fields
from score.dialects.items import row_of_part
from score.dialects.schemas import Bounds, Schema
from score.dialects.vectors import PACKED, packed, vector_of
from score.errors import BadField
from score.wording.quoting import quoted

_TYPES: dict[str, Callable[[Record], object]] = {"float": vector_of, "base64": packed}
_PURPOSES = ("search_document", "search_query", "classification", "clustering", "image")


def parse(message: Message) -> Call:
    """Texts, images, or inputs of one text or one image each. Raises RequestError.

    `input_type` must be one of Cohere's and changes nothing: CLIP has no prefixes. Vectors are of
    unit length, as Cohere's are.
    """
    fields = Fields(message.json())
    model, dimension = fields.text("model"), fields.integer("output_dimension")
    if fields.choice("input_type", _PURPOSES) is None:
        raise BadField(f"the body needs 'input_type', one of {', '.join(_PURPOSES)}", "input_type")
    name, cells = fields.one_of("texts", "images", "inputs")
    types = _types(fields.take("embedding_types"))
    truncate = fields.choice("truncate", ("END", "NONE")) or "END"
    fields.ignore("priority")
    fields.end()
    params = Params(normalize=True, truncate="end" if truncate == "END" else "error")
    rows = _rows(name, cells)
    return Call(
        rows,
        params,
        functools.partial(_answer, rows, types),
        model,
        dimension,
        "output_dimension",
        number=sum(PACKED if name == "base64" else NUMBER for name in types),
    )


def _rows(name: str, cells: object) -> list[Row]:
    if not isinstance(cells, list) or not cells:
        raise BadField(f"{name!r} must be a list that is not empty", name)
    if name == "inputs":
        return [_input(cell) for cell in cells]
    return [Row(text=cell) if name == "texts" else Row(image=cell) for cell in cells]


def _input(item: object) -> Row:
    fields = Fields(item, "an input")
    content = fields.take("content")
    fields.end()
    if not isinstance(content, list) or len(content) != 1:
        raise BadField(
            "an input's 'content' must be a list of one text or one image: CLIP does not fuse them",
            "inputs",
        )
    return row_of_part(content[0], "an input's content")


def _types(types: object) -> list[str]:
    if types is None:
        return ["float"]
    if not isinstance(types, list) or not types:
        raise BadField(
            f"'embedding_types' must be a list, not {wire.kind(types)}", "embedding_types"
        )
    for name in types:
        if not isinstance(name, str) or name not in _TYPES:
            shown = quoted(name) if isinstance(name, str) else wire.kind(name)
            raise BadField(
                f"'embedding_types' may hold {', '.join(map(repr, _TYPES))}, not {shown}",
                "embedding_types",
            )
    return list(dict.fromkeys(types))


def _answer(
    rows: Sequence[Row], types: Sequence[str], records: Sequence[Record], model: ModelFacts
) -> object:
    images = sum(record.image_features is not None for record in records)
    tokens = sum(record.tokens for record in records)
    billed: dict[str, Any] = {"images": images} if images else {}
    billed |= {"input_tokens": tokens} if tokens else {}
    return {
        "id": str(uuid.uuid4()),
        "response_type": "embeddings_by_type",
        "embeddings": {name: [_TYPES[name](record) for record in records] for name in types},
        "texts": [row.text for row in rows if row.text is not None],
        "meta": {"api_version": {"version": "2"}, "billed_units": billed},
    }


def refuse(refusal: Refusal) -> Reply:
    """`{"id", "message"}`."""
    return Reply(refusal.status, {"id": str(uuid.uuid4()), "message": refusal.message})


def _schema(bounds: Bounds) -> Schema:
    content = {**schemas.listed(schemas.part(), 1, 1), "description": "one text or one image"}
    cells = {
        "texts": schemas.A_TEXT,
        "images": schemas.IMAGE_TEXT,
        "inputs": schemas.closed({"content": content}, ["content"]),
    }
    types = schemas.listed(schemas.choice(*_TYPES), None, 1)
    return schemas.closed(
        {
            "model": schemas.nullable(schemas.STRING),
            "input_type": schemas.choice(*_PURPOSES),
            **{
                name: schemas.nullable(schemas.listed(cell, bounds.rows, 1))
                for name, cell in cells.items()
            },
            "embedding_types": schemas.nullable(types),
            "output_dimension": schemas.nullable({"type": "integer"}),
            "truncate": schemas.nullable(schemas.choice("END", "NONE")),
            "priority": schemas.IGNORED,
        },
        ["input_type"],
        oneOf=schemas.exactly_one(*cells),
    )


_EXAMPLE: dict[str, Any] = {
    "id": "5f0c2f1e-6f0b-4a39-9d7c-0f5c2d6f7a11",
    "response_type": "embeddings_by_type",
    "embeddings": {"float": [[0.42, 0.13, -0.07]]},
    "texts": ["a photo of a cat"],
    "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7}},
}
_IMAGES = {**_EXAMPLE["meta"], "billed_units": {"images": 1}}

EMBED = Route(
    path="/v2/embed",
    summary="Cohere's embeddings, of texts and images",
    parse=parse,
    refuse=refuse,
    schema=_schema,
    example={"input_type": "search_query", "texts": ["a photo of a cat"]},
    answer=_EXAMPLE,
    also=({**_EXAMPLE, "embeddings": {"base64": ["PQrXPrgeBT4pXI+9"]}, "meta": _IMAGES},),
)
