"""Values of a YAML file: looked up by path, parsed as numbers, checked against an input's type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from score.errors import AzureError
from score.type_aliases import Json

BINDING = re.compile(r"\$\{\{([^{}]*)\}\}")
"""`${{inputs.table}}`: a value that Azure inserts."""

THREE_DAYS = 259_200  # seconds; the most of a batch runner's timeouts (reference-yaml-job-parallel)

_TYPES: Mapping[str, Callable[[str], object]] = {"integer": int, "number": float}
_BOOLEANS = ("true", "false")


def mapping(value: object) -> Json:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def at(content: object, path: str) -> object:
    """The value at a path such as `retry_settings.timeout`, or None. Keys may contain dots."""
    if not isinstance(content, dict):
        return None
    if path in content:
        return content[path]
    first, _, rest = path.partition(".")
    return at(content.get(first), rest) if rest else None


def strings(value: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a value, with its path."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from strings(item, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, f"{where}[{index}]")


def whole(where: str, value: object, least: int, most: int | None = None) -> int:
    """A value as an integer from `least` to `most`. Raises AzureError, beginning with `where`."""
    try:
        number = int(str(value))
    except ValueError:
        raise AzureError(f"{where}: {value!r} is not a whole number") from None
    if number < least:
        raise AzureError(f"{where}: {number} is less than {least}")
    if most is not None and number > most:
        raise AzureError(f"{where}: {number} is too much: {most} is the most")
    return number


def literal(where: str, value: object, wanted: Json) -> Iterator[str]:
    """What is wrong with a literal value of an input of the type `wanted`."""
    kind = str(wanted.get("type")).lower()
    if kind == "boolean" and str(value).lower() not in _BOOLEANS:
        yield f"{where}: {value!r} is neither true nor false"
    if kind in _TYPES:
        yield from _number(where, value, kind, wanted)
    choices = wanted.get("enum")
    if isinstance(choices, list) and str(value) not in map(str, choices):
        yield f"{where}: must be one of {', '.join(map(str, choices))}, not {value!r}"


def _number(where: str, value: object, kind: str, wanted: Json) -> Iterator[str]:
    number = _read(kind, value)
    if number is None:
        yield f"{where}: {value!r} is no {kind}"
        return
    least, most = _read("number", wanted.get("min")), _read("number", wanted.get("max"))
    if least is not None and number < least:
        yield f"{where}: {value} is less than {wanted['min']}"
    if most is not None and number > most:
        yield f"{where}: {value} is more than {wanted['max']}"


def _read(kind: str, value: object) -> float | None:
    try:
        return float(str(_TYPES[kind](str(value))))
    except ValueError:
        return None
