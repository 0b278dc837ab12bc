"""The tasks that wait for a worker, and those that ended one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from score.executors.work import Failure, Task

TRIES = 3
"""Workers that a task may end before it is given up."""


class TaskQueue:
    """The tasks that wait for a worker.

    A worker has several tasks at a time, so that it need not wait for the next one. If it dies, any
    of them may be to blame: each is a suspect then, and is tried again by a worker that has no
    other.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        """tasks: are taken as they are asked for."""
        self._tasks = iter(tasks)
        self._next: Task | None = None
        self._again: list[Task] = []
        self._deaths = Counter[int]()  # by a task's first row

    def peek(self) -> Task | None:
        """The task to be given away next; None where there is none."""
        if self._again:
            return self._again[0]
        if self._next is None:
            self._next = next(self._tasks, None)
        return self._next

    def pop(self) -> Task:
        """Takes away the task that `peek` gives."""
        if self._again:
            return self._again.pop(0)
        task, self._next = self._next, None
        assert task is not None
        return task

    def is_suspect(self, task: Task) -> bool:
        """Whether a worker died that had it."""
        return self._deaths[task.rows.first] > 0

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Has them done by another worker."""
        self._again.extend(tasks)

    def died(self, tasks: Iterable[Task], why: str) -> list[Failure]:
        """Has the tasks of a worker that died done again; returns those that are given up."""
        failures = []
        for task in tasks:
            self._deaths[task.rows.first] += 1
            if self._deaths[task.rows.first] >= TRIES:
                how = f"{TRIES} workers that had them died, the last one so: {why}"
                failures.append(Failure(task, how))
            else:
                self._again.append(task)
        return failures
