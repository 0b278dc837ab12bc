"""How jobs tell their progress, and the exit code of a job over many rows."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from score.console.commands import DONE, TOO_MANY_ERRORS, Parser, lead_nowhere, say
from score.console.progress import interruptible, progress_bar, repeatedly
from score.errors import UnreadableFile
from score.jobs.summary import Summary
from score.type_aliases import Json
from score.wording.durations import duration

Kind = Literal["bar", "lines", "json", "none"]
"""A bar on the terminal, lines in a log, events for programs, nothing."""

LINES, EVENTS = 30.0, 5.0  # seconds between two


def add_progress(parser: Parser) -> None:
    """`--quiet` and `--progress`, for jobs over rows."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="no progress: --progress none")
    group.add_argument(
        "--progress",
        choices=get_args(Kind),
        help=f"a bar, or a line every {LINES:.0f} seconds (stderr), or JSON, an event a line "
        "(stdout); default: bar on a terminal, else lines",
    )


def kind_of(options: argparse.Namespace) -> Kind:
    """The progress that the flags of `add_progress` choose."""
    if options.quiet:
        return "none"
    chosen: Kind | None = options.progress
    return chosen or ("bar" if sys.stderr.isatty() else "lines")


@contextmanager
def row_progress(
    summary: Summary, size: int, kind: Kind, *, left: str = "nothing written"
) -> Iterator[Callable[[Summary], None]]:
    """Tells the progress of a job over rows, which updates `summary`; yields the function to call
    after each row.

    size: the summary's `position` at the end. left: what there is if the job is interrupted.
    """

    def shown() -> str:
        return f"; {summary}"

    if kind == "bar":
        with progress_bar(size, always=True, summary=shown, left=left) as bar:

            def show(summary: Summary) -> None:
                bar.update(summary.position - bar.n)
                bar.set_description_str(
                    f"{summary.rows:,} rows, {summary.rate:.1f} rows/s, {summary.errors:,} errors"
                    + (f", {summary.waiting:,} tried again" if summary.waiting else ""),
                    refresh=False,
                )

            yield show
        return
    with interruptible(shown, left):
        if kind == "lines":
            with repeatedly(LINES, _Lines(summary, size).say):
                yield _nothing
        elif kind == "json":
            with _events(summary, size):
                yield _nothing
        else:
            yield _nothing


def _nothing(summary: Summary) -> None:
    """Other threads tell what the job has counted."""


def _share(summary: Summary, size: int) -> float:
    """Of the input that has been read, from 0 to 1."""
    return min(summary.position / size, 1.0) if size else 0.0


def _seconds_left(summary: Summary, size: int) -> float | None:
    """At the rate of this run; None where that is not known, as it is not while failed rows are
    tried again at the end."""
    share = _share(summary, size)
    if not 0 < share < 1 or not summary.rate:
        return None
    return summary.rows * (1 / share - 1) / summary.rate


class _Lines:
    """Lines of a log."""

    def __init__(self, summary: Summary, size: int) -> None:
        self._summary, self._size = summary, size
        self._rows, self._at = summary.rows, time.monotonic()

    def say(self) -> None:
        """Tells the progress, and the rate since the line before."""
        summary, now = self._summary, time.monotonic()
        rows = summary.rows
        rate = max(rows - self._rows, 0) / max(now - self._at, 1e-9)
        self._rows, self._at = rows, now
        line = (
            f"{rows:,} rows ({_share(summary, self._size):.1%} of the input), {rate:,.1f} rows/s, "
            f"{summary.errors:,} failed"
        )
        if summary.waiting:
            line += f"; {summary.waiting:,} of them, of hosts that are down, are tried again"
        if (left := _seconds_left(summary, self._size)) is not None:
            line += f", about {duration(left)} left"
        with suppress(OSError, ValueError):  # whoever read the log has closed it
            say(line)


@contextmanager
def _events(summary: Summary, size: int) -> Iterator[None]:
    """Events on stdout: one at the start, one every few seconds, one at the end."""
    events = _Events(summary, size)
    events.tell("start")
    state = "failed"
    try:
        with repeatedly(EVENTS, lambda: events.tell("progress")):
            yield
        state = "stopped" if summary.stopped else "done"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        events.tell("end", state)


class _Events:
    """Writes JSON to stdout, until whoever reads it closes it: the job goes on."""

    def __init__(self, summary: Summary, size: int) -> None:
        self._summary, self._size = summary, size

    def tell(self, event: str, state: str = "running") -> None:
        """Writes a line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = {"event": event, "time": now, "state": state, **self._content()}
        if state == "done":
            content["seconds_left"] = 0.0
        try:
            print(json.dumps(content, separators=(",", ":")), flush=True)
        except (OSError, ValueError):
            # What stays in the buffer would fail once more when the process ends.
            with suppress(OSError, ValueError):
                lead_nowhere(sys.stdout.fileno())

    def _content(self) -> Json:
        summary = self._summary
        left = _seconds_left(summary, self._size)
        return {
            "rows": summary.rows,
            "earlier": summary.earlier,
            "failed": summary.errors,
            "errors": dict(summary.failed),
            "retried": summary.retried,
            "recovered": summary.recovered,
            "waiting": summary.waiting,
            "share": round(_share(summary, self._size), 6),
            "seconds": round(summary.seconds, 3),
            "rows_per_second": round(summary.rate, 3),
            "seconds_left": None if left is None else round(left, 1),
        }


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
    if unread := summary.failed[UnreadableFile.code]:
        say(
            f"{unread:,} input files could not be read to their end: the rows with the code "
            f"{UnreadableFile.code} name them"
        )
    allowed = max(summary.rows - 1 if max_errors is None else max_errors, 0)
    if summary.errors > allowed:
        limit = "no row succeeded" if max_errors is None else f"--max-errors allows {allowed:,}"
        say(f"exit code {TOO_MANY_ERRORS}: {summary.errors:,} failed; {limit}")
    return TOO_MANY_ERRORS if unread or summary.errors > allowed else DONE
