"""docs/reference/errors.md: the error tree, from the classes and docstrings in score/errors.py.

An error's docstring explains it and, after `What to do:`, how to fix the cause. If only some errors
of a class are retryable, a paragraph starts with `Retryable where`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from docs.generator.markdown import page, unwrapped
from docs.generator.sources import errors

ADVICE = "What to do:"
DEPENDS = "Retryable where"

Error = type[errors.ScoreError]


def errors_page() -> str:
    """The tree, and a section for each error."""
    root: Error = errors.ScoreError
    return page(
        "score/errors.py",
        "Errors",
        "Every error that this package raises on purpose is one of these; all can be imported from "
        "`score.errors`.",
        "```text\n" + "\n".join(tree(root)) + "\n```",
        "A refused HTTP request is answered with the status below and "
        '`{"error": {"code", "message", "rows"}}`, where `rows` lists the failed rows, each with '
        "`index`, `column`, `code`, `message` and `retryable`. Clients of an Azure ML endpoint get "
        "status 424 with the same body, and the status below in the header "
        "`ms-azureml-model-error-statuscode`. MLflow's server answers 400 instead of 422, with the "
        "same object under `error`.",
        "Three codes have no class: `not_found` (404) and `method_not_allowed` (405), for a path "
        "or method that is not served, and `internal_error` (500), a failure inside the model or a "
        "bug: the server's log has the details.",
        'Under `on_error="report"`, and in batch jobs, a failed row does not fail the others: its '
        'record is `{"error": {"code", "message", "retryable"}}`, in tables the columns '
        "`error_code`, `error_message` and `error_retryable`.",
        "On the command line any error but a row's ends the command with its message and exit code "
        "2.",
        "\n".join(["| Code | HTTP status | Retryable | Error |", "|---|---|---|---|", *codes()]),
        *(section(error) for error in (root, *below(root))),
    )


def children(error: Error) -> list[Error]:
    """The errors derived from this one in its own module, in the order of the file."""
    return [one for one in error.__subclasses__() if one.__module__ == errors.__name__]


def below(error: Error) -> Iterator[Error]:
    """All errors derived from this one, in the order of the tree."""
    for child in children(error):
        yield child
        yield from below(child)


def tree(error: Error) -> Iterator[str]:
    """The lines that draw an error and those derived from it."""
    yield error.__name__
    derived = children(error)
    for child in derived:
        corner, bar = ("└── ", "    ") if child is derived[-1] else ("├── ", "│   ")
        first, *more = tree(child)
        yield corner + first
        yield from (bar + line for line in more)


def codes() -> Iterator[str]:
    """A line of the table for each error that has a code."""
    for error in below(errors.ScoreError):
        if code := getattr(error, "code", None):
            name = error.__name__
            link = f"[{name}](#{name.lower()})"
            yield f"| `{code}` | {status(error)} | {retryable(error)} | {link} |"


def section(error: Error) -> str:
    """The section of an error: meaning, facts, what to do."""
    meaning, advice = explanation(error)
    listed = "\n".join(f"- {fact}" for fact in facts(error))
    advised = f"**{ADVICE}** {advice}" if advice else ""
    return "\n\n".join(filter(None, [f"## {error.__name__}", *meaning, listed, advised]))


def explanation(error: Error) -> tuple[list[str], str]:
    """A docstring's paragraphs on the meaning, and the one on what to do."""
    paragraphs = [unwrapped(part) for part in (inspect.getdoc(error) or "").split("\n\n")]
    advice = [part for part in paragraphs if part.startswith(ADVICE)]
    if error is not errors.ScoreError and (len(advice) != 1 or len(paragraphs) < 2):
        raise ValueError(f"the docstring of {error.__name__} needs one paragraph '{ADVICE} …'")
    meaning = [part for part in paragraphs if part not in advice]
    return meaning, "".join(advice).removeprefix(ADVICE).strip()


def facts(error: Error) -> Iterator[str]:
    """Code, status and retryability, if the class has them."""
    if code := getattr(error, "code", None):
        yield f"code: `{code}`"
    if text := status(error):
        of_request = ', of the request under `on_error="raise"`'
        yield f"HTTP status: {text}{of_request if issubclass(error, errors.RowError) else ''}"
    if text := retryable(error):
        yield f"retryable: {text}"


def status(error: Error) -> str:
    """The HTTP status of a refused request; empty for errors that requests do not cause."""
    if issubclass(error, errors.RequestError):
        return str(error.status)
    return str(errors.RowsFailed.status) if issubclass(error, errors.RowError) else ""


def retryable(error: Error) -> str:
    """Whether a retry may succeed: yes, no, depends; empty for errors outside requests."""
    if issubclass(error, errors.RowError):
        depends = any(part.startswith(DEPENDS) for part in explanation(error)[0])
        return "depends" if depends else "yes" if error.retryable else "no"
    if issubclass(error, errors.RowsFailed):
        return "as its rows"
    if issubclass(error, errors.RequestError):
        return "yes" if error.retryable else "no"
    return ""
