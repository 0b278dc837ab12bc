"""A progress bar on the terminal, and the handling of interrupted jobs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from score.console.commands import INTERRUPTED, say

if TYPE_CHECKING:
    from tqdm import tqdm

_FORMAT = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"


@contextmanager
def progress_bar(
    total: int | None = None, *, quiet: bool, summary: Callable[[], str] = lambda: ""
) -> Iterator[tqdm[Any]]:
    """A tqdm bar over `total` steps; hidden if stderr is not a terminal, or if `quiet`.

    If the job is interrupted (SIGINT, SIGTERM), its clean-up runs, then the process exits with code
    130; `summary` is added to the message.
    """
    from tqdm import tqdm  # a fifth of the time that a command takes to start; few show a bar

    bar = tqdm(total=total, disable=True if quiet else None, bar_format=_FORMAT)
    try:
        with bar, sigterm_interrupts():
            yield bar
    except KeyboardInterrupt:
        say(f"interrupted, nothing written{summary()}")
        os._exit(INTERRUPTED)  # downloads in progress are threads that would delay the exit


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt, so that a job stopped by its scheduler cleans up.

    SIGINT is unchanged: a shell starts background jobs with SIGINT ignored, which must stay so.
    """
    if threading.current_thread() is not threading.main_thread():  # may not set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
