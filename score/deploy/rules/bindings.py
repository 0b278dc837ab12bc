"""Bindings `${{…}}` of components and jobs: whether the input or output exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

from score.deploy.rules.documents import Document
from score.deploy.rules.notes import Note
from score.deploy.values import BINDING, at, mapping, strings
from score.type_aliases import Json

# Without the dollar sign Azure passes the braces on as text.
_BARE = re.compile(r"(?<!\$)\{\{\s*(?:parent|inputs|outputs)\.[^}]*\}\}")
_RUNS = re.compile(r"python3? -m score\b")
_OTHER = ("search_space", "parent")  # of a sweep; of a pipeline's steps, which `pipelines` checks


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
                    unused = f"{side}.{name}: nothing uses it"
                    yield unused if _ours(content) else Note(unused)


def _ours(content: Json) -> bool:
    """Whether a component runs this project, which uses inputs through its arguments alone.

    Others may read an input's path from a variable, or declare an input only to run after another
    step.
    """
    scripts = (at(content, "task.entry_script"), at(content, "entry.file"))
    command = str(content.get("command", ""))
    return bool(_RUNS.search(command)) or any(str(one).startswith("score/") for one in scripts)
