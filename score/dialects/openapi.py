"""`/openapi.json`: the table of dialects as OpenAPI 3.1, with shapes derived from examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from score import __version__
from score.dialects.base import FORM, JSON, Page, Refusal, Route

_BAD_ROW = {
    "index": 0,
    "column": "image",
    "code": "bad_base64",
    "message": "…",
    "retryable": False,
}
_REFUSALS = (
    Refusal(400, "bad_request", "the body is not JSON"),
    Refusal(422, "bad_rows", "1 of 1 rows failed", None, [_BAD_ROW]),  # type: ignore[list-item]
)


def document(routes: Sequence[Route], pages: Sequence[Page]) -> dict[str, Any]:
    """The OpenAPI document of all paths."""
    paths: dict[str, Any] = {}
    for page in pages:
        paths.setdefault(_path(page.path), {})["get"] = _page(page)
    for route in routes:
        paths.setdefault(_path(route.path), {})["post"] = _operation(route)
    info = {"title": "clip-endpoints", "version": __version__, "license": {"name": "MIT"}}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _path(path: str) -> str:
    return path.replace(":path}", "}")


def _operation(route: Route) -> dict[str, Any]:
    return {
        "summary": route.summary,
        "operationId": _identifier("post", route.path),
        **_parameters(route.path),
        "requestBody": {
            "required": True,
            "content": {kind: _body(route, kind) for kind in route.takes},
        },
        "responses": {
            "200": _response("the answer", route.answer),
            "4XX": _errors(route),
            "5XX": _errors(route),
        },
    }


def _page(page: Page) -> dict[str, Any]:
    refused = page.refuse(Refusal(404, "not_found", "…")).content
    return {
        "summary": page.summary,
        "operationId": _identifier("get", page.path),
        **_parameters(page.path),
        "responses": {"2XX": {"description": "the page"}, "4XX": _response("refused", refused)},
    }


def _identifier(method: str, path: str) -> str:
    words = "".join(character if character.isalnum() else " " for character in _path(path))
    return "_".join([method, *words.split()])


def _parameters(path: str) -> dict[str, Any]:
    if "{model" not in path:
        return {}
    schema = {"type": "string", "minLength": 1}
    return {"parameters": [{"name": "model", "in": "path", "required": True, "schema": schema}]}


def _body(route: Route, kind: str) -> dict[str, Any]:
    if kind == JSON:
        return {"schema": {"type": "object"}, "example": route.example}
    if kind == FORM:
        parts = {"image": {"type": "string", "format": "binary"}, "text": {"type": "string"}}
        return {"schema": {"type": "object", "properties": parts}}
    return {"schema": {"type": "string", "format": "binary"}}


def _response(description: str, example: object) -> dict[str, Any]:
    content = {JSON: {"schema": schema_of(example), "example": example}}
    return {"description": description, "content": content}


def _errors(route: Route) -> dict[str, Any]:
    """The shape of a dialect's errors: those of whole requests, and those of rows."""
    contents = [route.refuse(refusal).content for refusal in _REFUSALS]
    return _response("refused", contents[1]) | {
        "content": {JSON: {"schema": _any(contents), "example": contents[1]}}
    }


def schema_of(example: object) -> dict[str, Any]:
    """The JSON Schema of values that have the shape of an example; null stands for anything."""
    if isinstance(example, dict):
        properties = {key: schema_of(value) for key, value in example.items()}
        return {"type": "object", "properties": properties, "required": list(example)}
    if isinstance(example, list):
        return {"type": "array", "items": _any(example)} if example else {"type": "array"}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names[type(example)]} if type(example) in names else {}


def _any(examples: Sequence[object]) -> dict[str, Any]:
    """The schema of whatever has the shape of one of the examples."""
    schemas: list[dict[str, Any]] = []
    for example in examples:
        if (schema := schema_of(example)) not in schemas:
            schemas.append(schema)
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
