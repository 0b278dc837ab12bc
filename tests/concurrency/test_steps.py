from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from score.concurrency.steps import NEEDS_A_THREAD, Steps, Wait, on_this_thread


def test_steps_run_to_their_end() -> None:
    future: Future[int] = Future()

    def steps() -> Steps[int]:
        yield NEEDS_A_THREAD
        yield Wait(future, 60)
        return future.result() + 1

    threading.Timer(0.01, future.set_result, [1]).start()
    assert on_this_thread(steps()) == 2


def test_what_a_future_ends_with_is_for_the_steps_to_see() -> None:
    failed, cancelled, late = Future[None](), Future[None](), Future[None]()
    failed.set_exception(ValueError("it failed"))
    cancelled.cancel()

    def steps() -> Steps[None]:
        yield Wait(cancelled, 60)
        yield Wait(late, 0.001)
        assert not late.done()
        yield Wait(failed, None)
        failed.result()

    with pytest.raises(ValueError, match="it failed"):
        on_this_thread(steps())


def test_an_interrupt_closes_the_steps() -> None:
    closed: list[bool] = []

    class Interrupted(Future[None]):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            raise KeyboardInterrupt

    def steps() -> Steps[None]:
        try:
            yield Wait(Interrupted(), None)
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        on_this_thread(steps())
    assert closed == [True]
