"""Forward passes that all callers of an encoder share.

Theory of operation. A caller asks for the vectors of some inputs and waits. One thread computes:
while any request is pending, it takes inputs for one forward pass, computes them, and hands each
caller its vectors. There is no batching delay: an input that finds the thread idle is computed at
once, alone, and inputs that arrive meanwhile make up the next pass. So passes are small under light
load, and large under heavy load. (For callers that ask again as soon as they are answered,
`anticipation` makes an exception, which is shorter than a pass.)

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
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np

from score.concurrency.cancellation import Cancellation
from score.concurrency.forks import renewing
from score.concurrency.steps import Steps, Wait
from score.core.anticipation import Anticipation
from score.type_aliases import Matrix

Compute = Callable[[Sequence[Any]], Matrix]
"""Inputs → vectors [inputs, dimension]."""


class Pass(NamedTuple):
    """A pass from the view of one request. began, ended: Unix times in nanoseconds; inputs: of all
    requests; own: of this one."""

    began: int
    ended: int
    inputs: int
    own: int


Report = Callable[[Pass], None]
"""Called where a caller goes on, with each pass that computed inputs of its request."""


class SharedCompute(Protocol):
    """A `Compute` whose callers share passes, and wait for them."""

    def __call__(self, inputs: Sequence[Any], call: Cancellation | None = None, /) -> Steps[Matrix]:
        """`inputs`: at least one. Raises what the computation raises, and Cancelled or
        RequestTimeout if `call` ends."""


class Request:
    """Inputs whose vectors a caller waits for."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.inputs = inputs
        self.since = time.monotonic()  # when it was last served, or created
        self.started = 0  # inputs that are computed, or are being computed
        self.vectors: Future[Matrix] = Future()
        self.passes: list[Pass] = []
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

    def wait(self, call: Cancellation) -> Steps[Matrix]:
        """The vectors of all inputs. Raises what a pass raised, Cancelled, RequestTimeout."""
        with call.interrupting(self.vectors.cancel):
            yield Wait(self.vectors, call.left)
            if not self.vectors.done():
                call.expire()
            return self.vectors.result()

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

    def __init__(
        self, compute: Compute, most: int, cost: Callable[[Any], int], report: Report
    ) -> None:
        """Parameters as in `Batcher.shared`."""
        self.compute, self.report = compute, report
        self._most, self._cost = most, cost
        self._requests: list[Request] = []
        self.anticipation = Anticipation()

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
        self.anticipation.arrived()

    def clear(self) -> None:
        """Removes all requests."""
        self._requests = []

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

    def passed(self, parts: Sequence[Part], seconds: float) -> None:
        """A pass has computed these inputs in so many seconds; callers are not answered yet."""
        answered = sum(part.stop == len(request.inputs) for request, part in parts)
        inputs = sum(part.stop - part.start for _, part in parts)
        self.anticipation.passed(inputs, seconds, answered)

    def _turns(self) -> Iterator[Request]:
        """Requests in turn, over and over, each as long as it has inputs left."""
        turns = self._requests
        while turns:
            yield from turns
            turns = [request for request in turns if request.left]


class Batcher:
    """Computes the requests of any number of threads, one pass at a time."""

    def __init__(self) -> None:
        # A queue ends with the function that `shared` returned: a model may be unloaded.
        self._queues: weakref.WeakSet[Queue] = weakref.WeakSet()
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._thread = ThreadPoolExecutor(1, "encode")
        self._is_running = False
        for queue in self._queues:
            queue.clear()

    def shared(
        self,
        compute: Compute,
        most: int,
        cost: Callable[[Any], int],
        report: Report = lambda done: None,
    ) -> SharedCompute:
        """`compute` as a function whose callers share passes.

        most: the highest total cost of a pass; an input that alone costs more gets a pass of its
        own. cost: the cost of an input. report: told of the passes of each call.
        """
        queue = Queue(compute, most, cost, report)
        with self._lock:
            self._queues.add(queue)
        return functools.partial(self._ask, queue)

    def backlog(self) -> Backlog:
        """What waits now."""
        with self._lock:
            inputs = sum(queue.waiting for queue in self._queues)
            since = min((queue.since for queue in self._queues), default=math.inf)
        return Backlog(inputs, max(0.0, time.monotonic() - since) if inputs else 0.0)

    def _ask(
        self, queue: Queue, inputs: Sequence[Any], call: Cancellation | None = None
    ) -> Steps[Matrix]:
        assert inputs, "no pass would ever answer a request without inputs"
        request = Request(inputs)
        call = call or Cancellation()
        call.check()
        with self._lock:
            queue.add(request)
            self._arrived.notify()
            if not self._is_running:
                self._thread.submit(self._run)
                self._is_running = True
        try:
            return (yield from request.wait(call))
        except BaseException:  # an interrupt, a call that has ended, or a pass that failed
            with self._lock:
                queue.remove(request)
            raise
        finally:
            for done in request.passes:
                queue.report(done)

    def _run(self) -> None:
        """Computes passes until all queues are empty."""
        while True:
            with self._lock:
                queue = self._next()
                parts = queue.take() if queue else []
                if not parts:
                    # A request that is cancelled between the two lines above leaves the queue
                    # without a notice, and requests to the other queue may still wait.
                    if any(queue.waiting for queue in self._queues):
                        continue
                    self._is_running = False
                    return
            assert queue
            self._compute(queue, parts)

    def _next(self) -> Queue | None:
        """The queue of the next pass, after those callers have come for whom it waits."""
        while True:
            queue = min(self._queues, key=lambda queue: queue.since, default=None)
            if queue is None or sum(each.waiting > 0 for each in self._queues) != 1:
                return queue
            # A request may be cancelled between these lines: it is not counted any more then.
            patience = queue.anticipation.patience(queue.waiting)
            if patience <= 0:
                return queue
            self._arrived.wait(patience)

    def _compute(self, queue: Queue, parts: Sequence[Part]) -> None:
        inputs = [item for request, part in parts for item in request.inputs[part]]
        began, start = time.time_ns(), time.perf_counter()
        try:
            vectors = queue.compute(inputs)
        except BaseException as error:
            if len(parts) == 1:
                parts[0][0].fail(error)
                return
        else:
            seconds = time.perf_counter() - start
            with self._lock:  # before the answers, after which callers come back
                queue.passed(parts, seconds)
            _answer(parts, vectors, began)
            return
        for alone in parts:
            self._compute(queue, [alone])


def _answer(parts: Sequence[Part], vectors: Matrix, began: int) -> None:
    start, ended = 0, time.time_ns()
    for request, part in parts:
        stop = start + part.stop - part.start
        request.passes.append(Pass(began, ended, len(vectors), stop - start))
        request.answer(part, vectors[start:stop])
        start = stop
