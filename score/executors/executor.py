"""What an executor is: the processes that make a job's shards, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from score.executors.work import Begun, Failure, Partial, Result, Task, Work

Seen = Callable[[Iterable[Partial]], None]
"""Is told, now and then, how far the tasks are that are under way."""


class Executor(Protocol):
    """Processes with a model each, which turn tasks into shards.

    A shard that a worker has written has a name of its own below the folder's `ATTEMPTS`, whoever
    else writes the same rows. The caller gives it its name in the job.
    """

    def begin(self, work: Work) -> Begun:
        """Loads the model in one worker, and says what it is. Raises ScoreError, OSError."""
        ...

    def results(self, tasks: Iterable[Task], seen: Seen) -> Iterator[Result | Failure]:
        """Each task's result, once, in any order.

        Takes tasks as there is room for them. Raises ScoreError where no worker can go on.
        """
        ...

    def close(self) -> None:
        """Ends all workers, whatever they do."""
        ...


def first_line(error: Exception) -> str:
    """What an engine's error says, without its traceback."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)[:300]
