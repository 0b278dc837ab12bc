"""Ray's actors: a model each, on a GPU or a share of a machine's processors.

Actors are called as worker processes of one machine are (see `local`): some tasks ahead, and a task
whose actor died is done again. The model, the input and the job's folder must be where all machines
see them, under the same path, and the project must be installed there.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from score.errors import ScoreError
from score.executors.executor import Seen, first_line
from score.executors.queue import TaskQueue
from score.executors.work import Begun, Failure, Refusal, Result, Task, Work
from score.executors.worker import Worker
from score.job_folder import manifest

log = logging.getLogger(__name__)

_AHEAD = 2  # tasks of an actor, at most
_LOOK = 1.0  # seconds between two looks for signals
_STARTS = 3  # of actors that die in a row before they have the model
_PATIENCE = 30.0  # seconds without a place for the first actor after which a warning tells so


class Actor:
    """A model in a process that Ray started."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._worker: Worker | None = None

    def begun(self) -> Begun | Refusal:
        """Loads the model."""
        try:
            self._worker = Worker(self._work)
        except (ScoreError, OSError) as error:
            return Refusal(str(error))
        return self._worker.begun

    def result(self, task: Task) -> Result | Refusal:
        """Makes a shard."""
        try:
            if self._worker is None:
                self._worker = Worker(self._work)
            if not manifest.exists(self._work.folder):
                raise ScoreError(
                    f"{self._work.folder} is not on a machine of Ray's what it is on the driver: "
                    "the output must be on storage that all machines have under one path"
                )
            (result,) = self._worker.results([task])
        except (ScoreError, OSError) as error:
            return Refusal(str(error))
        return result


@dataclass
class _Handle:
    """An actor, and the tasks that it has, by their calls.

    loading: the call that loads its model; None once it has. Until then it may still wait for a
    place in the cluster, and gets no task. alone: whether it gets no other beside its task.
    """

    actor: Any
    loading: Any = None
    calls: dict[Any, Task] = field(default_factory=dict)
    alone: bool = False


class Ray:
    """An `Executor` of a Ray cluster's actors."""

    def __init__(self, actors: int | None = None) -> None:
        """actors: by default one for each GPU of the cluster, or for each machine where it has
        none. Connects to the cluster that RAY_ADDRESS names, else starts one of this machine."""
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            with _signals_kept():
                ray.init(log_to_driver=False, include_dashboard=False, logging_level="warning")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        self._count = actors or gpus or len(nodes)
        here = -(-self._count // len(nodes))  # of one machine
        self._of_machine = here
        cores = int(min(node.get("CPU", 1) for node in nodes))
        self._needs = {"num_gpus": 1} if gpus else {"num_cpus": max(1, cores // here)}
        _check_places(nodes, "GPU" if gpus else "CPU", self._count, *self._needs.values())
        self._work: Work | None = None
        self._actors = list[_Handle]()
        self._failed_starts = 0  # in a row

    def begin(self, work: Work) -> Begun:
        """As `Executor.begin`."""
        self._work = work.shared_by(self._count, self._of_machine)
        handle = self._start()
        waited = 0.0
        while not ray.wait([handle.loading], timeout=_LOOK)[0]:
            waited += _LOOK
            if waited % _PATIENCE == 0:
                log.warning(
                    "after %.0f s no worker has loaded the model: the cluster may have no free "
                    "place (`ray status`), or the model is large",
                    waited,
                )
        try:
            begun = self._loaded(handle)
        except RayError as error:
            raise _no_model(error) from error
        self._work = self._work.as_begun(begun)
        return begun

    def results(self, tasks: Iterable[Task], seen: Seen) -> Iterator[Result | Failure]:
        """As `Executor.results`."""
        queue = TaskQueue(tasks)
        while True:
            self._give(queue)
            calls = {call: handle for handle in self._actors for call in handle.calls}
            if not calls and queue.peek() is None:
                return
            loading = {handle.loading: handle for handle in self._actors if handle.loading}
            for call in ray.wait([*calls, *loading], timeout=_LOOK)[0]:
                if call in loading:
                    self._try_loaded(loading[call], queue)
                elif call in calls[call].calls:  # else its actor was found dead just now
                    yield from self._taken(call, calls[call], queue)
            seen(())

    def close(self) -> None:
        """As `Executor.close`."""
        for handle in self._actors:
            ray.kill(handle.actor)
        self._actors.clear()
        if self._is_ours:
            ray.shutdown()
            self._is_ours = False

    def _give(self, queue: TaskQueue) -> None:
        while (task := queue.peek()) is not None:
            suspect = queue.is_suspect(task)
            if (handle := self._free(suspect=suspect)) is None:
                return
            handle.alone = suspect
            queue.pop()
            handle.calls[handle.actor.result.remote(task)] = task

    def _free(self, *, suspect: bool) -> _Handle | None:
        ready = (handle for handle in self._actors if handle.loading is None)
        handles = sorted(ready, key=lambda handle: len(handle.calls))
        if handles and not handles[0].calls:
            return handles[0]
        if len(self._actors) < self._count:
            self._start()
        free = (one for one in handles if not one.alone and len(one.calls) < _AHEAD)
        return None if suspect else next(free, None)

    def _start(self) -> _Handle:
        actor = ray.remote(Actor).options(max_restarts=0, **self._needs).remote(self._work)
        self._actors.append(_Handle(actor, actor.begun.remote()))
        return self._actors[-1]

    def _loaded(self, handle: _Handle) -> Begun:
        """What an actor found when it loaded the model. Raises ScoreError, RayError."""
        begun: Begun | Refusal = ray.get(handle.loading)
        if isinstance(begun, Refusal):
            raise ScoreError(begun.why)
        handle.loading = None
        return begun

    def _try_loaded(self, handle: _Handle, queue: TaskQueue) -> None:
        """One that died when it loaded the model is replaced, but not for ever. Raises
        ScoreError."""
        try:
            self._loaded(handle)
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts == _STARTS or isinstance(error, RayTaskError):
                raise _no_model(error) from error
            self._died(handle, error, queue)
        else:
            self._failed_starts = 0

    def _taken(self, call: Any, handle: _Handle, queue: TaskQueue) -> Iterator[Result | Failure]:
        try:
            outcome: Result | Refusal = ray.get(call)
        except RayTaskError as error:
            raise ScoreError(f"an actor of Ray's failed: {first_line(error)}") from error
        except RayError as error:  # the actor died, or is out of reach
            yield from self._died(handle, error, queue)
            return
        if isinstance(outcome, Refusal):
            raise ScoreError(outcome.why)
        del handle.calls[call]
        yield outcome

    def _died(self, handle: _Handle, error: Exception, queue: TaskQueue) -> list[Failure]:
        self._actors.remove(handle)
        ray.kill(handle.actor)
        tasks = list(handle.calls.values())
        handle.calls.clear()
        log.warning("an actor of Ray's died; its rows are given to another: %s", first_line(error))
        return queue.died(tasks, first_line(error))


def _no_model(error: RayError) -> ScoreError:
    return ScoreError(f"an actor of Ray's cannot load the model: {first_line(error)}")


def _check_places(nodes: Sequence[Mapping[str, float]], kind: str, count: int, each: int) -> None:
    """Raises ScoreError where actors would wait for ever for a place. each: of a kind of resource,
    which an actor takes."""
    places = sum(int(node.get(kind, 0) // each) for node in nodes)
    if places < count:
        raise ScoreError(
            f"Ray's cluster has a place for {places} workers of {each} {kind} each, not for "
            f"{count}: --workers {max(1, places)}"
        )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray would make SIGTERM end the process in its own way."""
    if threading.current_thread() is not threading.main_thread():  # may not set handlers
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
