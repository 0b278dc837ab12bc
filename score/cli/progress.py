"""A job on the terminal: its progress bar, how it is stopped, and its exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from score.console.commands import DONE, INTERRUPTED, TOO_MANY_ERRORS, say

if TYPE_CHECKING:  # it brings pandas, which only some verbs need
    from score.jobs.summary import Summary

_BAR = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"


@contextmanager
def watched(summary: Summary, size: int, *, quiet: bool) -> Iterator[Callable[[Summary], None]]:
    """A progress bar of `size` steps over a job. A job that is stopped ends the process."""
    bar = tqdm(total=size, disable=True if quiet else None, bar_format=_BAR)

    def show(summary: Summary) -> None:
        bar.update(summary.position - bar.n)
        bar.set_description_str(
            f"{summary.rows:,} rows, {summary.rate:.1f} rows/s, {summary.errors:,} errors",
            refresh=False,
        )

    with _ending(lambda: f"; {summary}"), bar, stopping():
        yield show


@contextmanager
def staged(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar of several stages, called with a stage's name, how far it is, and its length.

    A job that is stopped ends the process.
    """
    bar = tqdm(disable=True if quiet else None, bar_format=_BAR)
    stage = ""

    def show(what: str, done: int, total: int) -> None:
        nonlocal stage
        if what != stage:
            stage = what
            bar.reset(total)
            bar.set_description_str(what, refresh=False)
        bar.update(done - bar.n)

    with _ending(lambda: ""), bar, stopping():
        yield show


@contextmanager
def _ending(more: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted, nothing written{more()}")
        os._exit(INTERRUPTED)  # downloads under way are threads that would hold the exit up


@contextmanager
def stopping() -> Iterator[None]:
    """SIGTERM is an interrupt, so that a job which its scheduler ends removes what it began.

    SIGINT is left as it is: a shell starts background jobs with it ignored, and so it stays.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def finished(output: Path, summary: Summary, max_errors: int | None) -> int:
    """Says how a job went, and returns its exit code."""
    print(f"{output}: {summary}", file=sys.stderr)
    allowed = summary.rows - 1 if max_errors is None else max_errors
    return TOO_MANY_ERRORS if summary.errors > max(allowed, 0) else DONE
