"""A progress bar on the terminal, and the handling of interrupted jobs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from score.console.commands import Interrupted, interrupted_code, lead_nowhere, say

if TYPE_CHECKING:
    from tqdm import tqdm

_SIGNALS = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
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
    """If the job is interrupted (SIGINT, SIGTERM, SIGHUP), its clean-up runs, then the process ends
    with the code of that signal. `left`: what there is then, for the message; `summary` is added to
    it."""
    try:
        with signals_interrupt():
            yield
    except KeyboardInterrupt as error:
        say(f"interrupted, {left}{summary()}")
        # Downloads in progress are threads that would delay the exit.
        os._exit(interrupted_code(error))


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
def signals_interrupt() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt, so that a job that its scheduler stops, or
    whose terminal is closed, cleans up.

    A signal that is ignored stays so: `nohup` ignores SIGHUP. SIGINT is unchanged: a shell starts
    background jobs with SIGINT ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # may not set handlers
        yield
        return
    before = {
        number: signal.signal(number, _interrupt)
        for number in _SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: object) -> None:
    """Raises Interrupted, after the outputs of a terminal that is gone lead nowhere: writing to it
    fails, in whatever has something to say."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            lead_nowhere(stream)
    raise Interrupted(number)
