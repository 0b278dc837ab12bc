"""`/openapi.json`: the table of dialects as OpenAPI 3.1, with shapes derived from examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from score import __version__
from score.dialects.base import FORM, JSON, Page, Refusal, Route, ServerPage
from score.dialects.schemas import Bounds
from score.errors import RowProblem

_BAD_ROW: RowProblem = {
    "index": 0,
    "column": "image",
    "code": "bad_base64",
    "message": "…",
    "retryable": False,
}
_EMPTY_ROW: RowProblem = {**_BAD_ROW, "column": None, "code": "empty_row"}
_REFUSALS = (
    Refusal(400, "bad_request", "the body is not JSON"),
    Refusal(422, "bad_rows", "1 of 1 rows failed", None, [_BAD_ROW, _EMPTY_ROW]),
)


def document(
    routes: Sequence[Route], pages: Sequence[Page], server: Sequence[ServerPage], bounds: Bounds
) -> dict[str, Any]:
    """The OpenAPI document of all paths, which are relative to its own. bounds: the server's."""
    paths: dict[str, Any] = {}
    for page in pages:
        paths.setdefault(_path(page.path), {})["get"] = _page(page)
    for own in server:
        paths.setdefault(own.path, {})["get"] = _server_page(own)
    for route in routes:
        paths.setdefault(_path(route.path), {})["post"] = _operation(route, bounds)
    info = {"title": "clip-endpoints", "version": __version__, "license": {"name": "MIT"}}
    return {"openapi": "3.1.0", "info": info, "servers": [{"url": "."}], "paths": paths}


def _path(path: str) -> str:
    return path.replace(":path}", "}")


def _operation(route: Route, bounds: Bounds) -> dict[str, Any]:
    return {
        "summary": route.summary,
        "operationId": _identifier("post", route.path),
        **_parameters(route.path),
        "requestBody": {
            "required": True,
            "content": {kind: _body(route, kind, bounds) for kind in route.takes},
        },
        "responses": {
            "200": _response("the answer", route.answer, *route.also),
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
        "responses": {"2XX": {"description": page.summary}, "4XX": _response("refused", refused)},
    }


def _server_page(page: ServerPage) -> dict[str, Any]:
    return {
        "summary": page.summary,
        "operationId": _identifier("get", page.path),
        "responses": {
            str(status): {"description": page.summary, "content": {kind: {}}}
            for status, kind in page.answers.items()
        },
    }


def _identifier(method: str, path: str) -> str:
    words = "".join(character if character.isalnum() else " " for character in _path(path))
    return "_".join([method, *words.split()])


def _parameters(path: str) -> dict[str, Any]:
    if "{model" not in path:
        return {}
    schema = {"type": "string", "minLength": 1}
    return {"parameters": [{"name": "model", "in": "path", "required": True, "schema": schema}]}


def _body(route: Route, kind: str, bounds: Bounds) -> dict[str, Any]:
    if kind == JSON:
        return {"schema": route.schema(bounds), "example": route.example}
    if kind == FORM and route.form is not None:
        return {"schema": route.form(bounds)}
    return {"schema": {"type": "string", "format": "binary"}}


def _response(description: str, example: object, *also: object) -> dict[str, Any]:
    content = {JSON: {"schema": schema_of(example, *also), "example": example}}
    return {"description": description, "content": content}


def _errors(route: Route) -> dict[str, Any]:
    """The shape of a dialect's errors: those of rows, and those of whole requests."""
    whole, rows = (route.refuse(refusal).content for refusal in _REFUSALS)
    return _response("refused", rows, whole)


def schema_of(*examples: object) -> dict[str, Any]:
    """The JSON Schema of values that have the shape of one of some examples.

    Objects with the same keys are one shape, lists too; null stands for anything.
    """
    if None in examples:
        return {}
    shapes: dict[object, list[Any]] = {}
    for example in examples:
        key = tuple(example) if isinstance(example, dict) else type(example)
        shapes.setdefault(key, []).append(example)
    schemas = [_schema(alike) for alike in shapes.values()]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _schema(alike: Sequence[Any]) -> dict[str, Any]:
    """The schema of examples of one shape."""
    first = alike[0]
    if isinstance(first, dict):
        properties = {key: schema_of(*(example[key] for example in alike)) for key in first}
        return {"type": "object", "properties": properties, "required": list(first)}
    if isinstance(first, list):
        items = [item for example in alike for item in example]
        return {"type": "array", "items": schema_of(*items)} if items else {"type": "array"}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names[type(first)]}
