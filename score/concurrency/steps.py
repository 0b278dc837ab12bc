"""Work that says what it waits for, so that whoever runs it decides how to wait.

Theory of operation. A request for a text computes for half a millisecond, and waits for a forward
pass in between. A thread of its own would cost it as much again: Python's lock is handed over when
the thread begins, when it waits, when it goes on, and when it ends. So such work is a generator,
`Steps`, which yields a `Wait` where it waits for a future. A thread that runs it blocks there
(`on_this_thread`); an event loop runs other work meanwhile. Before work that blocks in other ways,
or takes long, it yields `NEEDS_A_THREAD`: an event loop has a thread run it from there on.

Whoever runs steps closes them if it does not run them to their end.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wait:
    """The steps go on once the future is done, or after so many seconds; None: no such limit."""

    future: Future[Any]
    seconds: float | None

    def block(self) -> None:
        """Waits. Raises nothing of the future's."""
        with suppress(CancelledError, TimeoutError):
            self.future.exception(self.seconds)


class _Need(Enum):
    THREAD = "a thread"


NEEDS_A_THREAD: Final = _Need.THREAD
"""What follows may block, or take long."""

Steps = Generator[Wait | _Need, None, T]


def on_this_thread(steps: Steps[T]) -> T:
    """Runs steps, and blocks where they wait. Returns and raises what they do."""
    try:
        while True:
            step = next(steps)
            if isinstance(step, Wait):
                step.block()
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()
