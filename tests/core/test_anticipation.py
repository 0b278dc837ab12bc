"""Passes that wait for callers: simulated, in the time of the simulation."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import mean, median

import pytest

from score.core.anticipation import Anticipation

FIXED, EACH = 0.018, 0.003  # seconds of a pass, and of each of its inputs
HANDLING = 0.002  # seconds of one thread for a request, before it waits for a pass
WAY = 0.0003  # seconds from an answer to the next request
SECONDS = 20.0
MOST = 64

Then = Callable[[], None]


@dataclass
class Simulation:
    """One model, and callers that ask for one input at a time.

    contended: whether requests are handled on a core that a pass uses as well, which makes the pass
    longer.
    """

    waits: bool
    fixed: float = FIXED
    contended: bool = False
    now: float = 0.0
    passes: list[int] = field(default_factory=list)  # inputs of each
    seconds: list[float] = field(default_factory=list)  # from a request to its answer
    waited: float = 0.0  # longest time for which the model was idle though a request waited

    def __post_init__(self) -> None:
        self.anticipation = Anticipation(lambda: self.now)
        self._events: list[tuple[float, int, Then]] = []
        self._numbers = count()
        self._waiting: list[Then] = []  # what each answer causes
        self._computing: list[Then] = []
        self._began = self._ends = 0.0  # of the pass
        self._handled = 0.0  # until when the thread that handles requests is busy
        self._idle: float | None = None
        for _ in range(3):
            self.now += self.fixed + EACH
            self.anticipation.passed(1, self.fixed + EACH, 0)
        self.until = self.now + SECONDS

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.seconds) / SECONDS

    def at(self, when: float, what: Then) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def run(self) -> Simulation:
        while self._events and self._events[0][0] < self.until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self

    def ask(self, then: Then) -> None:
        """A request; `then` is called when it is answered."""
        began = self.now

        def answered() -> None:
            self.seconds.append(self.now - began)
            then()

        def arrived() -> None:
            self._waiting.append(answered)
            self.anticipation.arrived()
            self._begin()

        self._handled = max(self._handled, self.now) + HANDLING
        if self.contended and self._computing and self._handled < self._ends:
            self._ends += HANDLING
            self.at(self._ends, self._end)
        self.at(self._handled, arrived)

    def _begin(self) -> None:
        if self._computing or not self._waiting:
            return
        self._idle = self.now if self._idle is None else self._idle
        patience = self.anticipation.patience(len(self._waiting)) if self.waits else 0.0
        if patience > 1e-9:
            self.at(self.now + patience, self._begin)
            return
        self.waited, self._idle = max(self.waited, self.now - self._idle), None
        self._computing, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        inputs = len(self._computing)
        self.passes.append(inputs)
        self._began, self._ends = self.now, self.now + self.fixed + EACH * inputs
        self.at(self._ends, self._end)

    def _end(self) -> None:
        if self.now < self._ends:
            return  # handling has made the pass longer
        batch, self._computing = self._computing, []
        self.anticipation.passed(len(batch), self.now - self._began, len(batch))
        for answered in batch:
            answered()
        self._begin()


def closed(
    callers: int, *, waits: bool, fixed: float = FIXED, contended: bool = False
) -> Simulation:
    """Callers that each ask again when they are answered."""
    simulation = Simulation(waits, fixed, contended)

    def again() -> None:
        simulation.at(simulation.now + WAY, lambda: simulation.ask(again))

    for number in range(callers):
        simulation.at(simulation.now + number / 1000, again)
    return simulation.run()


def independent(rate: float, *, waits: bool) -> Simulation:
    """Requests at random times, `rate` a second on average."""
    simulation, draw = Simulation(waits), random.Random(0)
    when = simulation.now
    while (when := when + draw.expovariate(rate)) < simulation.until:
        simulation.at(when, partial(simulation.ask, lambda: None))
    return simulation.run()


def test_a_lone_caller_never_waits() -> None:
    assert closed(1, waits=True).waited == 0


@pytest.mark.parametrize(
    ("callers", "contended", "faster"),
    [(2, False, 1.4), (4, False, 1.2), (2, True, 1.5), (4, True, 1.4), (8, True, 1.25)],
)
def test_callers_that_come_back_meet_in_one_pass(
    callers: int, contended: bool, faster: float
) -> None:
    waiting, not_waiting = (
        closed(callers, waits=waits, contended=contended) for waits in (True, False)
    )
    assert mean(not_waiting.passes) < 0.6 * callers
    assert mean(waiting.passes) > 0.9 * callers
    assert waiting.rate > faster * not_waiting.rate
    assert median(waiting.seconds) < median(not_waiting.seconds)


@pytest.mark.parametrize("contended", [False, True])
@pytest.mark.parametrize("callers", [8, 16, 32, 64])
def test_many_callers_are_waited_for_only_where_that_pays(callers: int, contended: bool) -> None:
    waiting, not_waiting = (
        closed(callers, waits=waits, contended=contended) for waits in (True, False)
    )
    assert waiting.rate > 0.99 * not_waiting.rate


@pytest.mark.parametrize("rate", [5, 20, 40, 80, 120, 160])
def test_requests_that_do_not_depend_on_answers_are_not_delayed(rate: float) -> None:
    waiting, not_waiting = (independent(rate, waits=waits) for waits in (True, False))
    assert mean(waiting.seconds) < 1.01 * mean(not_waiting.seconds)


def test_nobody_is_waited_for_where_a_pass_has_no_fixed_time() -> None:
    assert closed(8, waits=True, fixed=0.0).waited < EACH


def test_callers_that_stay_away_are_waited_for_once() -> None:
    now = 0.0
    anticipation = Anticipation(lambda: now)
    for inputs in (1, 1, 1, *[8] * 40):  # eight callers that come back at once
        anticipation.passed(inputs, FIXED + inputs * EACH, inputs)
        for _ in range(inputs):
            anticipation.arrived()
    anticipation.passed(8, FIXED + 8 * EACH, 8)
    anticipation.arrived()
    assert anticipation.patience(1) == pytest.approx(anticipation.fixed)
    assert anticipation.patience(0) == 0  # it has been cancelled
    now += anticipation.fixed
    assert anticipation.patience(1) <= 0
    anticipation.passed(1, FIXED + EACH, 1)
    anticipation.arrived()
    assert anticipation.patience(1) == 0
