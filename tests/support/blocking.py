"""Steps as functions that block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from score.concurrency.steps import Steps, on_this_thread

T = TypeVar("T")


def blocking(steps: Callable[..., Steps[T]]) -> Callable[..., T]:
    """A function that runs what `steps` returns, on the thread that calls it."""

    def run(*arguments: Any) -> T:
        return on_this_thread(steps(*arguments))

    return run
