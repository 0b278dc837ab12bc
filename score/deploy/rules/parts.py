"""The parts of a document that share fields: itself, its task, its steps, inline definitions."""

from __future__ import annotations

from collections.abc import Iterator

from score.deploy.rules.documents import Document
from score.deploy.values import mapping
from score.type_aliases import Json

Part = tuple[str, Json]  # the path prefix of its fields, and the fields


def parts(document: Document) -> Iterator[Part]:
    """A document, and each part of it that may have code, an environment or numbers of its own."""
    yield from _within("", document.content)


def _within(where: str, content: Json) -> Iterator[Part]:
    yield where, content
    for name in ("task", "trial", "component"):
        inner = content.get(name)
        if isinstance(inner, dict):
            yield from _within(f"{where}{name}.", inner)
    for name, step in mapping(content.get("jobs")).items():
        if isinstance(step, dict):
            yield from _within(f"{where}jobs.{name}.", step)


def environments(document: Document) -> Iterator[Part]:
    """The environments that a document defines: itself, or inline ones."""
    if document.kind == "environment":
        yield "", document.content
        return
    for where, part in parts(document):
        if isinstance(part.get("environment"), dict):
            yield f"{where}environment.", part["environment"]


def models(document: Document) -> Iterator[Part]:
    """The models that a document defines: itself, or an inline one."""
    inline = document.content.get("model")
    if document.kind == "model":
        yield "", document.content
    elif document.family.endswith("deployment") and isinstance(inline, dict):
        yield "model.", inline


def variables(document: Document) -> Iterator[Part]:
    """The environment variables that a document sets, in its parts and their `settings`."""
    for where, part in parts(document):
        for prefix in ("", "settings."):
            holder = part if not prefix else mapping(part.get("settings"))
            values = holder.get("environment_variables")
            if isinstance(values, dict):
                yield f"{where}{prefix}environment_variables", values
