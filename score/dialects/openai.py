"""OpenAI's embeddings and models, with what servers like it add for images.

`input` is OpenAI's; `modality` is infinity's, `{"text"}` and `{"image"}` items are Jina's,
`messages` are vLLM's. What OpenAI refuses is refused: unknown keys, other dimensions, and a text
longer than the context, unless `truncate` says to cut it. Vectors are of unit length, as OpenAI's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from score.contract import wire
from score.contract.limits import NUMBER
from score.contract.params import Params
from score.contract.rows import Record, Row, is_empty
from score.dialects import schemas
from score.dialects.base import Call, Message, ModelFacts, Page, Refusal, Reply, Route
from score.dialects.fields import Fields
from score.dialects.items import row_of_part, rows_of
from score.dialects.schemas import Bounds, Schema
from score.dialects.vectors import PACKED, packed, vector_of
from score.errors import BadField, TextTooLong

_ENCODINGS = ("float", "base64")


def parse(message: Message) -> Call:
    """`POST /v1/embeddings`. Raises RequestError."""
    fields = Fields(message.json())
    model = fields.text("model")
    dimension_field, dimension = _dimension(fields)
    rows = _rows(fields)
    encoding = _encoding(fields)
    params = Params(
        normalize=fields.flag("normalized", True),
        truncate="end" if fields.flag("truncate", False) else "error",
    )
    fields.ignore("user")
    fields.end()
    render = functools.partial(_answer, encoding)
    number = PACKED if encoding == "base64" else NUMBER
    return Call(rows, params, render, model, dimension, dimension_field, number=number)


def _rows(fields: Fields) -> list[Row]:
    name, value = fields.one_of("input", "messages")
    modality = fields.choice("modality", ("text", "image"))
    if name == "messages":
        if modality:
            raise BadField("'modality' goes with 'input', not with 'messages'", "modality")
        return [_conversation(value)]
    return rows_of(value, "input", images=modality == "image")


def _dimension(fields: Fields) -> tuple[str, int | None]:
    """OpenAI's `dimensions`, or Voyage's name for it, which LiteLLM sends to infinity, too."""
    openai, voyage = fields.integer("dimensions"), fields.integer("output_dimension")
    if openai is None or voyage is None:
        return ("dimensions", openai) if voyage is None else ("output_dimension", voyage)
    if openai != voyage:
        raise BadField("'dimensions' and 'output_dimension' differ", "output_dimension")
    return "dimensions", openai


def _encoding(fields: Fields) -> str:
    """OpenAI's `encoding_format`, or Jina's name for it."""
    encoding = fields.choice("encoding_format", _ENCODINGS)
    jina = fields.choice("embedding_type", _ENCODINGS)
    if encoding and jina and encoding != jina:
        raise BadField("'encoding_format' and 'embedding_type' differ", "embedding_type")
    return encoding or jina or "float"


def _conversation(messages: object) -> Row:
    """One row for all messages: a CLIP vector is of one image or of one text."""
    if not isinstance(messages, list):
        raise BadField(f"'messages' must be a list, not {wire.kind(messages)}", "messages")
    rows = [row for message in messages for row in _contents(message)]
    if len(rows) != 1:
        raise BadField(
            f"'messages' become one vector, of one text or one image; they hold {len(rows)}",
            "messages",
        )
    return rows[0]


def _contents(message: object) -> list[Row]:
    fields = Fields(message, "a message")
    fields.text("role")
    content = fields.take("content")
    fields.end()
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise BadField(
            f"a message's content must be text or a list, not {wire.kind(content)}", "messages"
        )
    rows = [row_of_part(part, "a part of a message") for part in content]
    return [row for row in rows if not (is_empty(row.text) and is_empty(row.image))]


def _answer(encoding: str, records: Sequence[Record], model: ModelFacts) -> object:
    encode = packed if encoding == "base64" else vector_of
    tokens = sum(record.tokens for record in records)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(record)}
            for index, record in enumerate(records)
        ],
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def refuse(refusal: Refusal) -> Reply:
    """`{"error": {"message", "type", "param", "code"}}`. Bad rows are a 400, as OpenAI's are."""
    codes = {problem["code"] for problem in refusal.rows}
    code = codes.pop() if len(codes) == 1 else refusal.code
    error: dict[str, Any] = {
        "message": refusal.message,
        "type": "server_error" if refusal.status >= 500 else "invalid_request_error",
        "param": "input" if refusal.rows else refusal.field,
        "code": "context_length_exceeded" if code == TextTooLong.code else code,
    }
    if code == TextTooLong.code:
        error["message"] += '; shorten the text, or send "truncate": true to have it cut'
    return Reply(400 if refusal.rows else refusal.status, {"error": error})


def listed(models: Sequence[ModelFacts], message: Message) -> Reply:
    """`GET /v1/models`."""
    return Reply(200, {"object": "list", "data": [_model(model) for model in models]})


def described(models: Sequence[ModelFacts], message: Message) -> Reply:
    """`GET /v1/models/{id}`."""
    return Reply(200, _model(models[0]))


def _model(model: ModelFacts) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "clip-endpoints",
        "fingerprint": model.fingerprint,
    }


def _schema(bounds: Bounds) -> Schema:
    content = {"anyOf": [schemas.A_TEXT, schemas.listed(schemas.part())]}
    message = schemas.closed(
        {"role": schemas.nullable(schemas.STRING), "content": content}, ["content"]
    )
    of_keys: dict[str, Schema] = {
        "input": schemas.item(bounds),
        "messages": {
            **schemas.listed(message, None, 1),
            "description": "one text or one image in all of them",
        },
        "model": schemas.STRING,
        "modality": schemas.choice("text", "image"),
        "dimensions": {"type": "integer"},
        "output_dimension": {"type": "integer"},
        "encoding_format": schemas.choice(*_ENCODINGS),
        "embedding_type": schemas.choice(*_ENCODINGS),
        "normalized": {"type": "boolean", "default": True},
        "truncate": {"type": "boolean", "default": False},
        "user": schemas.IGNORED,
    }
    properties = {key: schemas.nullable(schema) for key, schema in of_keys.items()}
    return schemas.closed(properties, oneOf=schemas.exactly_one("input", "messages"))


_EXAMPLE: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.42, 0.13, -0.07]}],
    "model": "clip",
    "usage": {"prompt_tokens": 14, "total_tokens": 14},
}
_PACKED = {"object": "embedding", "index": 0, "embedding": "PQrXPrgeBT4pXI+9"}

EMBEDDINGS = Route(
    path="/v1/embeddings",
    summary="OpenAI's embeddings, of texts and images",
    parse=parse,
    refuse=refuse,
    schema=_schema,
    example={"input": ["a photo of a cat", "a photo of a dog"]},
    answer=_EXAMPLE,
    also=({**_EXAMPLE, "data": [_PACKED]},),
)
MODELS = Page("/v1/models", "OpenAI's list of models", listed, refuse)
MODEL = Page("/v1/models/{model:path}", "one of OpenAI's models", described, refuse)
