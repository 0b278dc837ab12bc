"""A progress bar on the terminal, and how a job that is interrupted ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from score.console.commands import INTERRUPTED, say

_FORMAT = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"


@contextmanager
def progress_bar(
    total: int | None = None, *, quiet: bool, summary: Callable[[], str] = lambda: ""
) -> Iterator[tqdm[Any]]:
    """A tqdm bar over a job of `total` steps; none where stderr is no terminal, or with `quiet`.

    A job that is interrupted (SIGINT, SIGTERM) ends the process with exit code 130 once its own
    clean-up is done; `summary` is added to the message.
    """
    bar = tqdm(total=total, disable=True if quiet else None, bar_format=_FORMAT)
    try:
        with bar, sigterm_interrupts():
            yield bar
    except KeyboardInterrupt:
        say(f"interrupted, nothing written{summary()}")
        os._exit(INTERRUPTED)  # downloads in progress are threads that would delay the exit


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, so that a job which its scheduler ends cleans up.

    SIGINT is left as it is: a shell starts background jobs with it ignored, and so it stays.
    """
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
