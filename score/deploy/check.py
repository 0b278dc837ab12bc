"""Whether files for Azure ML are right, as far as that shows without Azure.

Each file goes through azure-ai-ml's own loader, which refuses unknown fields and wrong types. Then
the modules of `score.deploy.rules` look at what the loader lets pass: values that Azure refuses,
parts that do not fit each other, and everything that a file refers to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from score.deploy.rules import (
    bindings,
    commands,
    deployments,
    documents,
    endpoints,
    environments,
    mlflow_models,
    names,
    pipelines,
    ports,
    ranges,
    references,
    schemas,
    sizes,
    spark,
    variables,
)
from score.deploy.rules.documents import Document, Known
from score.deploy.rules.notes import Note
from score.errors import AzureError


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found: a sentence each, which begins with the file and the field."""

    problems: list[str]
    notes: list[str]  # what only a workspace can show, what works and may surprise, what is skipped
    files: int  # that were checked


def check(folders: Sequence[Path], beside: Sequence[Path] = ()) -> list[str]:
    """The problems that `findings` finds."""
    return findings(folders, beside).problems


def findings(folders: Sequence[Path], beside: Sequence[Path] = ()) -> Findings:
    """What there is to say of the YAML files below these folders.

    Their environments, models and endpoints may be their own, or in the folders `beside`, which are
    not checked. A file that is nothing of Azure's is passed over, and so is a template: a note says
    that. Raises AzureError for folders in
    which there is nothing else.
    """
    problems: list[str] = []
    notes: list[str] = []
    opened: list[Document] = []
    for file in documents.files(folders):
        try:
            document = documents.read(file)
        except AzureError as error:
            problems.append(str(error))
            continue
        if isinstance(document, Document):
            opened.append(document)
        elif document:
            notes.append(document)
    files = len(opened) + len(problems)
    if not files:
        raise AzureError(
            "; ".join([f"no YAML for Azure in {', '.join(map(str, folders))}", *notes])
        )
    known = Known([*opened, *documents.beside(beside)])
    for document in opened:
        for sentence in _findings(document, known):
            group = notes if isinstance(sentence, Note) else problems
            group.append(f"{document.file}: {sentence}")
    return Findings(problems, notes, files)


def _findings(document: Document, known: Known) -> Iterator[str]:
    yield from schemas.problems(document)
    yield from names.problems(document)
    yield from ranges.problems(document)
    yield from sizes.problems(document)
    yield from variables.problems(document)
    yield from references.problems(document, known)
    yield from environments.problems(document, known)
    yield from mlflow_models.problems(document)
    yield from deployments.problems(document, known)
    yield from endpoints.problems(document, known)
    yield from ports.problems(document)
    yield from bindings.problems(document)
    yield from pipelines.problems(document)
    yield from spark.problems(document)
    yield from commands.problems(document)
