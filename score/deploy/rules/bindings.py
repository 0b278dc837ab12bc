"""Bindings `${{…}}`: whether the other end is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from score.deploy.rules.documents import Document
from score.deploy.rules.notes import Note
from score.deploy.values import mapping, strings

BINDING = re.compile(r"\$\{\{(.*?)\}\}")
# With the dollar sign left out, Azure hands the braces on as they are.
_BARE = re.compile(r"(?<!\$)\{\{\s*(?:parent|inputs|outputs)\.[^}]*\}\}")
_LITERALS = ("integer", "number", "boolean", "string")
_OTHER = ("search_space", "parent")  # a sweep's; a pipeline's steps are looked at elsewhere


def problems(document: Document) -> Iterator[str]:
    """What is wrong with a component's or job's bindings to its own inputs and outputs."""
    content = document.content
    yield from (
        f"{where}: {bare} lacks its dollar sign"
        for where, text in strings(content)
        for bare in _BARE.findall(text)
    )
    if document.family not in ("component", "job") or "jobs" in content:
        return
    used = set()
    for where, text in strings(content):
        for binding in BINDING.findall(text):
            side, _, name = binding.strip().partition(".")
            name = name.partition(".")[0]  # ${{inputs.model.path}}
            if side in _OTHER:
                continue
            if side not in ("inputs", "outputs") or name not in mapping(content.get(side)):
                yield f"{where}: ${{{{{binding}}}}} leads nowhere"
            used.add((side, name))
    if document.family == "component" and document.kind != "pipelineComponent":
        for side in ("inputs", "outputs"):
            for name in mapping(content.get(side)):
                if (side, name) not in used:
                    yield from _unused(f"{side}.{name}", mapping(content[side]).get(name))


def _unused(where: str, port: object) -> Iterator[str]:
    """Azure takes a value that nothing uses; data that a step waits for and leaves is a mistake."""
    literal = mapping(port).get("type") in _LITERALS or mapping(port).get("is_control")
    yield Note(f"{where}: nothing uses it") if literal else f"{where}: nothing uses it"
