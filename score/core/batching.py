"""Forward passes that all callers of an encoder share.

Theory of operation. A caller asks for the vectors of some inputs and waits. One thread computes:
while anything is asked for, it takes inputs for one pass, computes them, and hands each caller its
vectors. Nobody waits for company: an input that finds the thread idle is computed at once, alone,
and what is asked for meanwhile makes up the next pass. So passes are small while there is little to
do, and large where there is much.

Which inputs come next. Images and texts are queues of their own; the next pass is of the queue in
which a request has waited longest since it was last served. A pass with too little room for all of
its queue takes from every request the same number, as far as it has any left: a request of 1,000
rows does not keep one of a single row waiting.

A pass that fails is repeated for each request alone, so that only those fail that cannot be
computed.

Knows nothing of rows, HTTP or models.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from score.arrays import Matrix

Compute = Callable[[Sequence[Any]], Matrix]
"""Inputs → vectors [inputs, dimension]."""


class Request:
    """What a caller asks for."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.inputs = inputs
        self.since = time.monotonic()  # when it was last served, or began
        self.begun = 0  # inputs that are computed, or are being computed
        self.vectors: Future[Matrix] = Future()
        self._parts: list[Matrix] = []

    @property
    def left(self) -> int:
        """Inputs that a pass has still to take; none of a request that has failed."""
        return 0 if self.vectors.done() else len(self.inputs) - self.begun

    def answer(self, part: slice, vectors: Matrix) -> None:
        """Takes in the vectors of the next inputs."""
        self._parts.append(vectors)
        if part.stop == len(self.inputs) and not self.vectors.done():
            self.vectors.set_result(np.concatenate(self._parts))

    def fail(self, error: BaseException) -> None:
        """Ends it with an error."""
        if not self.vectors.done():
            self.vectors.set_exception(error)


Taken = tuple[Request, slice]
"""A request, and which of its inputs."""


class Queue:
    """What is to be computed by one function. Not safe by itself: its Batcher holds a lock."""

    def __init__(self, compute: Compute, most: int, cost: Callable[[Any], int]) -> None:
        """As `Batcher.shared` has it."""
        self.compute = compute
        self._most, self._cost = most, cost
        self._requests: list[Request] = []

    @property
    def since(self) -> float:
        """When the request that has waited longest was last served, or began; inf without any."""
        waiting = (request.since for request in self._requests if request.left)
        return min(waiting, default=math.inf)

    def add(self, request: Request) -> None:
        """Takes in a request."""
        self._requests.append(request)

    def remove(self, request: Request) -> None:
        """Forgets what no pass has taken of a request."""
        if request in self._requests:
            self._requests.remove(request)

    def take(self) -> list[Taken]:
        """The inputs of the next pass: of which requests, and which of theirs."""
        waiting = (request for request in self._requests if request.left)
        self._requests = sorted(waiting, key=lambda request: request.since)
        begun = {request: request.begun for request in self._requests}
        room = self._most
        for request in self._turns():
            cost = self._cost(request.inputs[request.begun])
            if cost > room and room < self._most:
                break
            room -= cost
            request.begun += 1
        now = time.monotonic()
        taken = []
        for request, start in begun.items():
            if request.begun > start:
                request.since = now
                taken.append((request, slice(start, request.begun)))
        self._requests = [request for request in self._requests if request.left]
        return taken

    def _turns(self) -> Iterator[Request]:
        """Requests that have inputs left, one after another, again and again."""
        turns = self._requests
        while turns:
            yield from turns
            turns = [request for request in turns if request.left]


class Batcher:
    """Computes what any number of threads ask for, one pass at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: list[Queue] = []
        # By process, since threads do not survive a fork.
        self._threads = functools.cache(lambda process: ThreadPoolExecutor(1, "encode"))
        self._running_in: int | None = None  # the process whose thread computes now

    def shared(self, compute: Compute, most: int, cost: Callable[[Any], int]) -> Compute:
        """As `compute`, but in passes that callers share. Raises what `compute` raises.

        most: what a pass may cost, but for a single input that costs more; cost: of an input.
        """
        queue = Queue(compute, most, cost)
        self._queues.append(queue)
        return functools.partial(self._ask, queue)

    def _ask(self, queue: Queue, inputs: Sequence[Any]) -> Matrix:
        if not inputs:
            return queue.compute(inputs)
        request = Request(inputs)
        with self._lock:
            queue.add(request)
            if self._running_in != os.getpid():
                self._threads(os.getpid()).submit(self._run)
                self._running_in = os.getpid()
        try:
            return request.vectors.result()
        except BaseException:  # an interrupt, or a pass that failed
            with self._lock:
                queue.remove(request)
            raise

    def _run(self) -> None:
        """Computes until there is nothing left."""
        while True:
            with self._lock:
                queue = min(self._queues, key=lambda queue: queue.since)
                taken = queue.take()
                if not taken:
                    self._running_in = None
                    return
            _compute(queue.compute, taken)


def _compute(compute: Compute, taken: Sequence[Taken]) -> None:
    try:
        vectors = compute([item for request, part in taken for item in request.inputs[part]])
    except BaseException as error:
        if len(taken) == 1:
            taken[0][0].fail(error)
            return
    else:
        start = 0
        for request, part in taken:
            stop = start + part.stop - part.start
            request.answer(part, vectors[start:stop])
            start = stop
        return
    for one in taken:
        _compute(compute, [one])
