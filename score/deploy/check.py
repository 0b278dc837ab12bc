"""Checks YAML files for Azure ML, as far as that is possible without a workspace.

Each file goes through azure-ai-ml's own loader, which refuses unknown fields and wrong types. Then
the modules of `score.deploy.rules` check what the loader accepts: values that Azure refuses, parts
that do not fit each other, and whether what a file refers to exists.
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
    servers,
    sizes,
    spark,
    variables,
)
from score.deploy.rules.documents import Document, Known
from score.deploy.rules.notes import Note
from score.errors import AzureError


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a check: sentences, each of which begins with the file and the field."""

    problems: list[str]
    notes: list[str]  # what only a workspace knows, what works but may surprise, what is skipped
    files: int  # number of files checked


def check(folders: Sequence[Path], beside: Sequence[Path] = ()) -> list[str]:
    """The problems alone of `findings`."""
    return findings(folders, beside).problems


def findings(folders: Sequence[Path], beside: Sequence[Path] = ()) -> Findings:
    """Checks the YAML files below these folders.

    What they refer to may be in these folders, or in the folders `beside`, which are not checked.
    Files that are not for Azure ML are skipped; so are templates, with a note. Raises AzureError
    where there is no file to check.
    """
    problems: list[str] = []
    notes: list[str] = []
    documents_read: list[Document] = []
    for path in folders:
        if not path.exists():
            raise AzureError(f"there is no {path}")
    for file in documents.files(folders):
        try:
            document = documents.read(file, named=file in folders)
        except AzureError as error:
            problems.append(str(error))
            continue
        if isinstance(document, Document):
            documents_read.append(document)
        elif document:
            notes.append(document)
    files = len(documents_read) + len(problems)
    if not files:
        raise AzureError(
            "; ".join([f"no YAML for Azure in {', '.join(map(str, folders))}", *notes])
        )
    known = Known([*documents_read, *documents.beside(beside)])
    for document in documents_read:
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
    yield from servers.problems(document, known)
    yield from endpoints.problems(document, known)
    yield from ports.problems(document)
    yield from bindings.problems(document)
    yield from pipelines.problems(document)
    yield from spark.problems(document)
    yield from commands.problems(document)
