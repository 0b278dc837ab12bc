"""Azure AI Search: the custom Web API skill and vectorizer, and the AML skill.

Shapes: https://learn.microsoft.com/azure/search/cognitive-search-custom-skill-web-api,
vector-search-vectorizer-custom-web-api and cognitive-search-aml-skill. An index compares vectors of
skills with vectors of vectorizers by any metric, so all are of unit length.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import TEXT, Record, Row
from score.contract.wire import TABLES
from score.dialects.base import Call, Message, ModelFacts
from score.dialects.schemas import A_TEXT, IMAGE_TEXT, STRING, Bounds, Schema, closed, nullable
from score.dialects.schemas import listed as list_of
from score.dialects.vectors import vector_of
from score.errors import BadField, BadType
from score.wording.quoting import listed, quoted

INPUTS = ("text", "imageUrl", "imageBinary", "image")
"""Keys of `data`: the vectorizer's three, and `image` for a skill's input."""

_LISTED = ", ".join(map(repr, INPUTS))


def recognises(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether decoded JSON is of this dialect: no table, but records or inputs."""
    if not isinstance(content, dict) or any(key in content for key in TABLES):
        return False
    return "values" in content or (
        any(key in content for key in INPUTS)
        and not any(isinstance(value, list) for value in content.values())
    )


def parse(message: Message) -> Call:
    """A body of this dialect. Raises RequestError."""
    content = message.json()
    if not isinstance(content, dict):
        raise BadField(f"the body must be a JSON object, not {wire.kind(content)}")
    return call_of(content)


def schema(bounds: Bounds) -> Schema:
    """Of the bodies: records, or the inputs of one."""
    image: Schema = {
        "anyOf": [
            IMAGE_TEXT,
            {
                "type": "object",
                "properties": {"data": nullable(IMAGE_TEXT), "url": nullable(IMAGE_TEXT)},
            },
        ]
    }
    inputs = {key: nullable(A_TEXT if key == TEXT else image) for key in INPUTS}
    record: Schema = {
        "type": "object",
        "properties": {"recordId": STRING, "data": {"type": "object", "properties": inputs}},
        "required": ["recordId", "data"],
    }
    records = closed({"values": list_of(record, bounds.rows)}, ["values"])
    return {"anyOf": [records, closed(inputs, minProperties=1)]}


def call_of(content: dict[str, Any]) -> Call:
    """The call of decoded JSON. Raises RequestError."""
    return _records(content) if "values" in content else _inputs(content)


def _inputs(content: dict[str, Any]) -> Call:
    """The AML skill: the inputs of one record, and nothing else."""
    unknown = _unused(content)
    if not content:
        raise BadField(f"the body needs 'values', or one of {_LISTED}")
    if unknown:
        raise BadField(f"unknown input {quoted(unknown[0])}; known are {_LISTED}", unknown[0][:80])
    return Call([_row(content)], Params(normalize=True), _vector)


def _vector(records: Sequence[Record], model: ModelFacts) -> object:
    return {"vector": vector_of(records[0])}


def _records(content: dict[str, Any]) -> Call:
    values = content["values"]
    for key in content:
        if key != "values":
            raise BadField(f"unknown key {quoted(key)} beside 'values'", key[:80])
    if not isinstance(values, list):
        raise BadField(f"'values' must be a list of records, not {wire.kind(values)}", "values")
    data: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(values):
        name, inputs = _record(record, f"values[{number}]")
        if name in data:
            raise BadField(f"the recordId {quoted(name)} appears twice", "values")
        data[name] = inputs
    rows = [_row(inputs) for inputs in data.values()]
    unused = [_unused(inputs) for inputs in data.values()]
    params = Params(normalize=True, on_error="report")
    return Call(rows, params, functools.partial(_values, list(data), unused))


def _record(record: object, where: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(record, dict):
        raise BadField(f"{where} must be an object, not {wire.kind(record)}", "values")
    name, data = record.get("recordId"), record.get("data")
    if not isinstance(name, str):
        raise BadField(f"{where}.recordId must be a string, not {wire.kind(name)}", "values")
    if not isinstance(data, dict):
        raise BadField(f"{where}.data must be an object, not {wire.kind(data)}", "values")
    return name, data


def _row(inputs: Mapping[str, Any]) -> Row:
    """The row of one record; a cell that is an error fails it."""
    present = [key for key in INPUTS if inputs.get(key) not in (None, "")]
    if len(present) > 1:
        several = " and ".join(map(repr, present))
        return Row(text=BadType(f"one vector for {several}: send them as two records"))
    if not present:
        keys = listed(inputs)
        return Row(text=BadType(f"a record needs one of {_LISTED}; its keys are {keys}"))
    (key,) = present
    value = inputs[key]
    if key == TEXT:
        return Row(text=value)
    # Images of a document's pages, files and the vectorizer's queries are objects.
    return Row(image=_image(value) if isinstance(value, dict) else value)


def _image(value: Mapping[str, Any]) -> object:
    present = (value[key] for key in ("data", "url") if value.get(key) not in (None, ""))
    return next(present, BadType("an image needs 'data' or 'url'"))


def _unused(inputs: Mapping[str, Any]) -> list[str]:
    return [key for key in inputs if key not in INPUTS]


def _values(
    names: Sequence[str],
    unused: Sequence[Sequence[str]],
    records: Sequence[Record],
    model: ModelFacts,
) -> object:
    return {
        "values": [
            _value(name, record, _warnings(keys, record, model))
            for name, keys, record in zip(names, unused, records, strict=True)
        ]
    }


def _value(name: str, record: Record, warnings: Sequence[str]) -> dict[str, Any]:
    error = record.error
    return {
        "recordId": name,
        "data": {} if error else {"vector": vector_of(record)},
        "errors": [{"message": f"{error.code}: {error}"}] if error else None,
        "warnings": [{"message": message} for message in warnings] or None,
    }


def _warnings(unused: Sequence[str], record: Record, model: ModelFacts) -> list[str]:
    warnings = [f"the input {quoted(key)} is not used; known are {_LISTED}" for key in unused[:10]]
    if record.tokens >= model.context > 0:
        warnings.append(
            f"the text fills the model's context of {model.context} tokens; what follows is cut"
        )
    return warnings
