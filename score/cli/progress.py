"""The progress of a job over many rows, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from score.console.commands import DONE, TOO_MANY_ERRORS
from score.console.progress import progress_bar

if TYPE_CHECKING:  # it brings pandas, which only some verbs need
    from score.jobs.summary import Summary


@contextmanager
def watched(summary: Summary, size: int, *, quiet: bool) -> Iterator[Callable[[Summary], None]]:
    """A progress bar of `size` steps over a job, which updates `summary`."""
    with progress_bar(size, quiet=quiet, summary=lambda: f"; {summary}") as bar:

        def show(summary: Summary) -> None:
            bar.update(summary.position - bar.n)
            bar.set_description_str(
                f"{summary.rows:,} rows, {summary.rate:.1f} rows/s, {summary.errors:,} errors",
                refresh=False,
            )

        yield show


@contextmanager
def staged(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar of several stages, called with a stage's name, its steps done, and in all."""
    with progress_bar(quiet=quiet) as bar:
        stage = ""

        def show(name: str, done: int, total: int) -> None:
            nonlocal stage
            if name != stage:
                stage = name
                bar.reset(total)
                bar.set_description_str(name, refresh=False)
            bar.update(done - bar.n)

        yield show


def finished(output: Path, summary: Summary, max_errors: int | None) -> int:
    """Prints how a job went, and returns its exit code."""
    print(f"{output}: {summary}", file=sys.stderr)
    allowed = summary.rows - 1 if max_errors is None else max_errors
    return TOO_MANY_ERRORS if summary.errors > max(allowed, 0) else DONE
