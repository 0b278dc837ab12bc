"""docs/reference/api.md: the public names, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from docs.generator.aliases import alias
from docs.generator.markdown import page, unwrapped
from docs.generator.sources import NAMES, errors, resolved, settings

_FIELD = re.compile(r"^(?P<names>`?\w+`?(, `?\w+`?)*): ")
_RAISES = re.compile(r"(.*?)(?: (Raises .*))?")  # ends a list, but describes the whole function
_NAME = re.compile(r"\b[A-Z]\w+")
_WIDTH = 88


def api_page() -> str:
    """A section for each public name, and the type aliases that their signatures mention."""
    sections = [part for name in NAMES for part in section(name, resolved(name))]
    mentioned = {one for one in _NAME.findall("\n".join(sections)) if not one.isupper()}
    modules = dict.fromkeys(resolved(name).__module__ for name in NAMES)
    definitions = [(name, alias(name, module)) for name in mentioned for module in modules]
    aliases = {name: text for name, text in reversed(definitions) if text}
    listed = "\n".join(f"- `{name}` = `{aliases[name]}`" for name in sorted(aliases))
    return page(
        "signatures and docstrings",
        "Python API",
        "Import these names from `score`, as in `from score import Embedder, Row`; all errors are "
        "in `score.errors`. Other names in the package may change without notice.",
        *sections,
        "## Types in these signatures",
        "Import them from `score.type_aliases`.",
        listed,
    )


def section(name: str, thing: Any) -> Iterator[str]:
    """One public name: its signature, its docstring, its methods."""
    yield f"## {name}"
    if inspect.isfunction(thing):
        yield code(signature(f"def {name}", thing))
        yield prose(thing)
        return
    if is_dataclass(thing) and thing is not settings.Settings:
        yield code(constructor(name, fields(thing)))
    if issubclass(thing, errors.ScoreError):
        yield paragraph((inspect.getdoc(thing) or "").partition("\n\n")[0])
        yield f"See [Errors](errors.md#{name.lower()})."
        return
    yield prose(thing)
    if thing is settings.Settings:
        yield "Every field is a keyword argument; [Settings](settings.md) lists them."
    for member, value in vars(thing).items():
        if not member.startswith("_"):
            yield from method(name, member, value)


def method(owner: str, name: str, value: Any) -> Iterator[str]:
    """A public method or property of a class; nothing for its other members."""
    title = f"### {owner}.{name}"
    if isinstance(value, property) and value.fget:
        yield from (title, code(f"{name}: {annotation(value.fget, 'return')}"), prose(value))
    elif isinstance(value, classmethod | staticmethod):
        kind = type(value).__name__
        function = value.__func__
        yield from (title, code(f"@{kind}\n" + signature(f"def {name}", function)), prose(value))
    elif inspect.isfunction(value):
        yield from (title, code(signature(f"def {name}", value)), prose(value))


def signature(head: str, function: Any) -> str:
    """A signature without `self` and private parameters; a long one has a line per parameter."""
    shown = [one for one in inspect.signature(function).parameters.values() if is_shown(one)]
    parts, starred = [], False
    for one in shown:
        if one.kind is one.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        parts.append(parameter(one, function))
    tail = f") -> {annotation(function, 'return')}"
    line = f"{head}({', '.join(parts)}{tail}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{head}(", *(f"    {part}," for part in parts), tail])


def is_shown(one: inspect.Parameter) -> bool:
    """Whether a parameter is for callers."""
    return one.name not in ("self", "cls") and not one.name.startswith("_")


def parameter(one: inspect.Parameter, function: Any) -> str:
    """A parameter as it is declared."""
    declared = f"{one.name}: {annotation(function, one.name)}"
    if one.default is one.empty:
        return declared
    return f"{declared} = {shown_default(one.default, function.__module__)}"


def annotation(function: Any, name: str) -> str:
    """The annotation of a parameter, or of `return`, as in the source."""
    return str(function.__annotations__.get(name, "None"))


def shown_default(value: Any, module: str) -> str:
    """A default: a constant's name if it has one, since the value may depend on the machine."""
    for name, constant in vars(sys.modules[module]).items():
        if constant is value and name.isupper() and not isinstance(value, bool):
            return name
    return repr(value)


def constructor(name: str, declared: tuple[Field[Any], ...]) -> str:
    """The signature of a data class's constructor."""
    lines = []
    for one in declared:
        default = "" if one.default is MISSING else f" = {one.default!r}"
        lines.append(f"    {one.name}: {one.type}{default},")
    return "\n".join([f"class {name}(", *lines, ")"])


def prose(thing: Any) -> str:
    """A docstring's paragraphs; lines that explain a parameter or field become a list."""
    text = inspect.getdoc(thing) or ""
    return "\n\n".join(map(paragraph, text.split("\n\n")))


def paragraph(text: str) -> str:
    """A paragraph of a docstring as Markdown."""
    if not _FIELD.match(text):
        return unwrapped(text)
    items: list[str] = []
    for line in text.splitlines():
        if match := _FIELD.match(line):
            names = match["names"].replace("`", "").split(", ")
            items.append(f"- {', '.join(f'`{one}`' for one in names)}: {line[match.end() :]}")
        else:
            items[-1] += f" {line.strip()}"
    items[-1], raises = _RAISES.fullmatch(items[-1]).groups()  # type: ignore[union-attr]
    return "\n".join(items) + (f"\n\n{raises}" if raises else "")


def code(text: str) -> str:
    """A block of Python that the documentation's tests do not run."""
    return f"```text\n{text}\n```"
