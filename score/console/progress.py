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
    total: int | None = None,
    *,
    quiet: bool = False,
    always: bool = False,
    summary: Callable[[], str] = lambda: "",
    left: str = "nothing written",
) -> Iterator[tqdm[Any]]:
    """A tqdm bar over `total` steps; hidden if `quiet`, or if stderr is not a terminal, unless
    `always`. summary, left: as of `interruptible`."""
    from tqdm import tqdm  # a fifth of the time that a command takes to start; few show a bar

    hidden = True if quiet else False if always else None
    bar = tqdm(total=total, disable=hidden, bar_format=_FORMAT)
    with interruptible(summary, left), bar:
        yield bar


@contextmanager
def interruptible(summary: Callable[[], str], left: str) -> Iterator[None]:
    """If the job is interrupted (SIGINT, SIGTERM), its clean-up runs, then the process exits with
    code 130. `left`: what there is then, for the message; `summary` is added to it."""
    try:
        with sigterm_interrupts():
            yield
    except KeyboardInterrupt:
        say(f"interrupted, {left}{summary()}")
        os._exit(INTERRUPTED)  # downloads in progress are threads that would delay the exit


@contextmanager
def repeatedly(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Calls `action` every so many seconds, until the block ends, whatever the block waits for."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(seconds):
            action()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


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
