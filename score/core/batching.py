"""Forward passes that all callers of an encoder share.

Theory of operation. A caller asks for the vectors of some inputs and blocks. One thread computes:
while any request is pending, it takes inputs for one forward pass, computes them, and hands each
caller its vectors. There is no batching delay: an input that finds the thread idle is computed at
once, alone, and inputs that arrive meanwhile make up the next pass. So passes are small under light
load, and large under heavy load.

Which inputs come next. Images and texts have a queue each; the next pass is of the queue in which a
request has waited longest since it was last served. Where a pass cannot take all of its queue, it
takes inputs from all requests in turn, one each: a request of 1,000 rows does not delay one of a
single row.

A pass that fails is repeated for each request alone, so that only those requests fail whose inputs
cannot be computed. A request whose call is cancelled leaves its queue at once; inputs of it that a
pass has taken are computed for nobody.

Knows nothing of rows, HTTP or models.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np

from score.fetch.cancellation import Cancellation
from score.type_aliases import Matrix

Compute = Callable[[Sequence[Any]], Matrix]
"""Inputs → vectors [inputs, dimension]."""


class SharedCompute(Protocol):
    """A `Compute` whose callers share passes."""

    def __call__(self, inputs: Sequence[Any], call: Cancellation | None = None, /) -> Matrix:
        """`inputs`: at least one. Raises what the computation raises, and Cancelled or
        RequestTimeout if `call` ends."""


class Request:
    """Inputs whose vectors a caller waits for."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.inputs = inputs
        self.since = time.monotonic()  # when it was last served, or created
        self.started = 0  # inputs that are computed, or are being computed
        self.vectors: Future[Matrix] = Future()
        self._parts: list[Matrix] = []

    @property
    def left(self) -> int:
        """Inputs that no pass has taken yet; 0 for a request that has failed or is cancelled."""
        return 0 if self.vectors.done() else len(self.inputs) - self.started

    def answer(self, part: slice, vectors: Matrix) -> None:
        """Adds the vectors of the next inputs; the last ones complete the request."""
        self._parts.append(vectors)
        if part.stop == len(self.inputs):
            with suppress(InvalidStateError):  # it has failed
                self.vectors.set_result(np.concatenate(self._parts))

    def wait(self, call: Cancellation) -> Matrix:
        """The vectors of all inputs. Raises what a pass raised, Cancelled, RequestTimeout."""
        with call.interrupting(self.vectors.cancel):
            try:
                return self.vectors.result(call.left)
            except TimeoutError:
                if not self.vectors.done():  # else it is of the pass
                    call.expire()
                raise

    def fail(self, error: BaseException) -> None:
        """Completes the request with an error, which its caller gets."""
        with suppress(InvalidStateError):  # it is complete, or has failed before
            self.vectors.set_exception(error)


class Backlog(NamedTuple):
    """Inputs that wait for a pass, and the seconds that the request waits that waits longest."""

    inputs: int
    seconds: float


Part = tuple[Request, slice]
"""A request, and which of its inputs a pass computes."""


class Queue:
    """Requests to one function. Not thread-safe by itself: its Batcher holds a lock."""

    def __init__(self, compute: Compute, most: int, cost: Callable[[Any], int]) -> None:
        """Parameters as in `Batcher.shared`."""
        self.compute = compute
        self._most, self._cost = most, cost
        self._requests: list[Request] = []

    @property
    def since(self) -> float:
        """When the request that has waited longest was last served; inf for an empty queue."""
        waiting = (request.since for request in self._requests if request.left)
        return min(waiting, default=math.inf)

    @property
    def waiting(self) -> int:
        """Number of inputs that no pass has taken yet."""
        return sum(request.left for request in self._requests)

    def add(self, request: Request) -> None:
        """Appends a request."""
        self._requests.append(request)

    def remove(self, request: Request) -> None:
        """Removes a request; inputs that a pass has taken are still computed."""
        if request in self._requests:
            self._requests.remove(request)

    def take(self) -> list[Part]:
        """The inputs of the next pass; an empty list for an empty queue."""
        waiting = (request for request in self._requests if request.left)
        self._requests = sorted(waiting, key=lambda request: request.since)
        starts = {request: request.started for request in self._requests}
        room = self._most
        for request in self._turns():
            cost = self._cost(request.inputs[request.started])
            if cost > room and room < self._most:
                break
            room -= cost
            request.started += 1
        now = time.monotonic()
        parts = []
        for request, start in starts.items():
            if request.started > start:
                request.since = now
                parts.append((request, slice(start, request.started)))
        self._requests = [request for request in self._requests if request.left]
        return parts

    def _turns(self) -> Iterator[Request]:
        """Requests in turn, over and over, each as long as it has inputs left."""
        turns = self._requests
        while turns:
            yield from turns
            turns = [request for request in turns if request.left]


class Batcher:
    """Computes the requests of any number of threads, one pass at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: list[Queue] = []
        # By process, since threads do not survive a fork.
        self._threads = functools.cache(lambda process: ThreadPoolExecutor(1, "encode"))
        self._running_in: int | None = None  # the process whose thread computes now

    def shared(self, compute: Compute, most: int, cost: Callable[[Any], int]) -> SharedCompute:
        """`compute` as a function whose callers share passes.

        most: the highest total cost of a pass; an input that alone costs more gets a pass of its
        own. cost: the cost of an input.
        """
        queue = Queue(compute, most, cost)
        self._queues.append(queue)
        return functools.partial(self._ask, queue)

    def backlog(self) -> Backlog:
        """What waits now."""
        with self._lock:
            inputs = sum(queue.waiting for queue in self._queues)
            since = min((queue.since for queue in self._queues), default=math.inf)
        return Backlog(inputs, max(0.0, time.monotonic() - since) if inputs else 0.0)

    def _ask(self, queue: Queue, inputs: Sequence[Any], call: Cancellation | None = None) -> Matrix:
        assert inputs, "no pass would ever answer a request without inputs"
        request = Request(inputs)
        call = call or Cancellation()
        call.check()
        with self._lock:
            queue.add(request)
            if self._running_in != os.getpid():
                self._threads(os.getpid()).submit(self._run)
                self._running_in = os.getpid()
        try:
            return request.wait(call)
        except BaseException:  # an interrupt, a call that has ended, or a pass that failed
            with self._lock:
                queue.remove(request)
            raise

    def _run(self) -> None:
        """Computes passes until all queues are empty."""
        while True:
            with self._lock:
                queue = min(self._queues, key=lambda queue: queue.since)
                parts = queue.take()
                if not parts:
                    # A request that is cancelled between the two lines above leaves the queue
                    # without a notice, and requests to the other queue may still wait.
                    if any(queue.waiting for queue in self._queues):
                        continue
                    self._running_in = None
                    return
            _compute(queue.compute, parts)


def _compute(compute: Compute, parts: Sequence[Part]) -> None:
    try:
        vectors = compute([item for request, part in parts for item in request.inputs[part]])
    except BaseException as error:
        if len(parts) == 1:
            parts[0][0].fail(error)
            return
    else:
        start = 0
        for request, part in parts:
            stop = start + part.stop - part.start
            request.answer(part, vectors[start:stop])
            start = stop
        return
    for alone in parts:
        _compute(compute, [alone])
