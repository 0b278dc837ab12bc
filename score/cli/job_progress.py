"""Progress bars of jobs, and the exit code of a job over many rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from score.console.commands import DONE, TOO_MANY_ERRORS
from score.console.progress import progress_bar
from score.jobs.summary import Summary


@contextmanager
def row_progress(
    summary: Summary, size: int, *, quiet: bool
) -> Iterator[Callable[[Summary], None]]:
    """A progress bar of `size` steps; yields the function to call with the updated `summary`."""
    with progress_bar(size, quiet=quiet, summary=lambda: f"; {summary}") as bar:

        def show(summary: Summary) -> None:
            bar.update(summary.position - bar.n)
            bar.set_description_str(
                f"{summary.rows:,} rows, {summary.rate:.1f} rows/s, {summary.errors:,} errors",
                refresh=False,
            )

        yield show


@contextmanager
def stage_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar of several stages; yields the function to call with a stage, steps, total."""
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


def print_summary(output: Path, summary: Summary, max_errors: int | None) -> int:
    """Prints a job's summary, and returns its exit code."""
    print(f"{output}: {summary}", file=sys.stderr)
    allowed = summary.rows - 1 if max_errors is None else max_errors
    return TOO_MANY_ERRORS if summary.errors > max(allowed, 0) else DONE
