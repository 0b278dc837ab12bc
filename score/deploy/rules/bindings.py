"""Bindings `${{…}}`: whether the other end is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from score.arrays import Json
from score.deploy.rules.documents import Document
from score.deploy.rules.notes import Note
from score.deploy.values import BINDING, at, mapping, strings

# With the dollar sign left out, Azure hands the braces on as they are.
_BARE = re.compile(r"(?<!\$)\{\{\s*(?:parent|inputs|outputs)\.[^}]*\}\}")
_RUNS = re.compile(r"python3? -m score\b")
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
                    said = f"{side}.{name}: nothing uses it"
                    yield said if _ours(content) else Note(said)


def _ours(content: Json) -> bool:
    """Whether a component runs this project, which reads nothing but its arguments.

    Others may read an input's path from a variable, or have an input to be run after another step.
    """
    scripts = (at(content, "task.entry_script"), at(content, "entry.file"))
    command = str(content.get("command", ""))
    return bool(_RUNS.search(command)) or any(str(one).startswith("score/") for one in scripts)
