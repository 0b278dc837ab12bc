"""Tasks that wait, and those whose workers died."""

from __future__ import annotations

from score.executors.queue import TRIES, TaskQueue
from score.executors.work import Task
from score.job_folder.ranges import Range

ONE, TWO, THREE = (Task(Range(first, 10, (first,))) for first in (0, 10, 20))


def test_tasks_are_taken_as_they_are_asked_for() -> None:
    taken: list[Task] = []
    queue = TaskQueue(taken.append(task) or task for task in (ONE, TWO))
    assert taken == []
    assert queue.peek() is queue.peek() is ONE
    assert taken == [ONE]
    assert (queue.pop(), queue.peek(), queue.pop(), queue.peek()) == (ONE, TWO, TWO, None)


def test_the_tasks_of_a_dead_worker_are_suspects_and_come_first() -> None:
    queue = TaskQueue((ONE, TWO, THREE))
    had = [queue.peek() and queue.pop() for _ in range(2)]
    assert had == [ONE, TWO]
    assert queue.died([ONE, TWO], "how") == []
    assert queue.peek() is ONE
    assert queue.is_suspect(ONE)
    assert queue.is_suspect(TWO)
    assert not queue.is_suspect(THREE)


def test_a_task_that_ends_workers_is_given_up() -> None:
    queue = TaskQueue(())
    for _ in range(TRIES - 1):
        assert queue.died([ONE], "first") == []
        assert queue.pop() is ONE
    (failure,) = queue.died([ONE], "last")
    assert failure.task is ONE
    assert failure.why == "3 workers that had them died, the last one so: last"
    assert queue.peek() is None


def test_a_worker_that_never_worked_blames_no_task() -> None:
    queue = TaskQueue(())
    for _ in range(TRIES + 1):
        queue.put_back([ONE])
        assert not queue.is_suspect(ONE)
        assert queue.pop() is ONE
