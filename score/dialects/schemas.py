"""JSON Schemas of what bodies of several dialects are made of: cells, tables, items, labels.

They are what the parsers accept, and beside each parser stands its body's. A key that is null
counts as absent where `Fields` reads it, and so it does here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from score.contract.labels import LONGEST_PROMPT
from score.contract.rows import COLUMNS, IMAGE, TEXT
from score.contract.wire import PARAMS

Schema = dict[str, Any]


class Bounds(NamedTuple):
    """The server's limits of one request. prompts: of its labels."""

    rows: int
    prompts: int


STRING: Schema = {"type": "string"}
ANYTHING: Schema = {}
IGNORED: Schema = {"description": "taken, and changes nothing"}
IMAGE_TEXT: Schema = {
    **STRING,
    "description": "an image: an http(s) URL, base64, or a data: URI",
    "examples": ["https://example.org/cat.jpg"],
}
A_TEXT: Schema = {**STRING, "description": "a text", "examples": ["a photo of a cat"]}
LABEL: Schema = {**STRING, "minLength": 1, "maxLength": LONGEST_PROMPT, "pattern": r"\S"}
CELLS: Mapping[str, Schema] = {
    IMAGE: {**IMAGE_TEXT, "type": ["string", "null"]},
    TEXT: {**A_TEXT, "type": ["string", "null"]},
}
"""Of a table: an empty cell is null or an empty string, and each row needs one that is not."""


def nullable(schema: Schema) -> Schema:
    """The schema of a key that may also be null."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema


def choice(*values: str) -> Schema:
    """One of some strings."""
    return {"enum": [*values]}


def listed(items: Schema, most: int | None = None, least: int = 0) -> Schema:
    """A list of `least` to `most` items."""
    schema: Schema = {"type": "array", "items": items}
    if least:
        schema["minItems"] = least
    return schema if most is None else {**schema, "maxItems": most}


def closed(properties: Mapping[str, Schema], required: Sequence[str] = (), **more: Any) -> Schema:
    """An object of these keys alone. more: other keywords."""
    schema: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = [*required]
    return {**schema, "additionalProperties": False, **more}


def exactly_one(*names: str) -> list[Schema]:
    """The value of `oneOf` for an object that has one of some keys, which is not null."""
    return [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]


def item(bounds: Bounds) -> Schema:
    """One of `items.rows_of`, or a list of them."""
    one: Schema = {
        "anyOf": [
            {**A_TEXT, "description": "a text, or a data: URI of an image"},
            closed(
                {TEXT: nullable(A_TEXT), IMAGE: nullable(IMAGE_TEXT)},
                oneOf=exactly_one(TEXT, IMAGE),
            ),
        ]
    }
    return {"anyOf": [*one["anyOf"], listed(one, bounds.rows, 1)]}


def part() -> Schema:
    """A part of a message, as `items.row_of_part` reads it."""
    url = closed({"url": nullable(IMAGE_TEXT), "detail": IGNORED})
    return {
        "anyOf": [
            closed({"type": {"const": "text"}, "text": nullable(A_TEXT)}, ["type"]),
            closed({"type": nullable(choice("image_url")), "image_url": url}, ["image_url"]),
        ]
    }


def labels(bounds: Bounds) -> Schema:
    """Labels as decoded JSON: a list, or an object of label → prompt or prompts."""
    prompts = listed(LABEL, bounds.prompts, 1)
    return {
        "anyOf": [
            {**prompts, "uniqueItems": True, "examples": [["cat", "dog"]]},
            {
                "type": "object",
                "propertyNames": LABEL,
                "additionalProperties": {"anyOf": [LABEL, prompts]},
                "minProperties": 1,
                "maxProperties": bounds.prompts,
                "examples": [{"cat": "a photo of a cat", "dog": ["a dog", "a puppy"]}],
            },
        ]
    }


PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}
TRUNCATE = choice("end", "error")


def params(bounds: Bounds) -> Schema:
    """The contract's params."""
    as_text = {**STRING, "description": "the JSON of labels, or blank for none"}
    return closed(
        {
            "normalize": {"type": "boolean", "default": False},
            "truncate": {**TRUNCATE, "default": "end"},
            "on_error": {**choice("raise", "report"), "default": "raise"},
            "labels": {"anyOf": [*labels(bounds)["anyOf"], as_text, {"type": "null"}]},
            "confidence": {**PROBABILITY, "default": 0},
        }
    )


def tables(bounds: Bounds, *keys: str) -> Schema:
    """A body with a table under one of some keys, and params."""
    return closed(
        {**{key: table(bounds) for key in keys}, PARAMS: nullable(params(bounds))},
        oneOf=[{"required": [key]} for key in keys],
    )


def table(bounds: Bounds) -> Schema:
    """A table in one of the contract's three layouts."""
    return {"anyOf": [_split(bounds), _records(bounds), _columns(bounds)]}


def _split(bounds: Bounds) -> Schema:
    names: Schema = {
        "type": "array",
        "contains": {"enum": [*COLUMNS]},
        "description": f"{' and '.join(COLUMNS)}, or one of them; others are ignored",
        "examples": [[*COLUMNS]],
    }
    row = {"type": "array", "description": "a cell for each column"}
    index = nullable(listed(ANYTHING, bounds.rows))
    return closed(
        {"columns": names, "index": index, "data": listed(row, bounds.rows)}, ["columns", "data"]
    )


def _records(bounds: Bounds) -> Schema:
    return listed({"type": "object", "properties": dict(CELLS)}, bounds.rows)


def _columns(bounds: Bounds) -> Schema:
    columns: Mapping[str, Schema] = {
        name: {"anyOf": [cell, listed(cell, bounds.rows)]} for name, cell in CELLS.items()
    }
    return {
        "type": "object",
        "properties": dict(columns),
        "anyOf": [{"required": [name]} for name in columns],
        "propertyNames": {"not": {"enum": ["columns", "data"]}},
    }


def form(bounds: Bounds, others: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
    """A form: parts `image` and `text`, which are a row each, and others."""
    image = {**STRING, "contentMediaType": "application/octet-stream"}
    rows = {IMAGE: listed(image, bounds.rows), TEXT: listed(A_TEXT, bounds.rows)}
    return closed({**rows, **others}, required)
