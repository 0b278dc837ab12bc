"""Requests on the event loop and on threads."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message as Received

from score.concurrency.cancellation import Cancellation
from score.concurrency.steps import NEEDS_A_THREAD, Steps, Wait
from score.core import endpoint
from score.core.embedder import Embedder
from score.core.endpoint import Answer
from score.core.models import Models
from score.dialects import azure
from score.dialects.base import Message
from score.serve import calls
from score.serve.wakes import Wakes
from score.settings import Settings

NAME: ContextVar[str] = ContextVar("name", default="")
SMALL, LARGE = b"{}", b" " * (calls._SMALL + 1)


def request(content: bytes = SMALL) -> Request:
    async def body() -> Received:
        return {"type": "http.request", "body": content, "more_body": False}

    return Request({"type": "http", "headers": []}, body)


async def cut_off(work: calls.Work) -> None:
    """A request that the end of the server cuts off."""
    each = calls.Calls(Settings(max_pending_requests=1))
    task = asyncio.create_task(each.answered(request(), work, azure.refuse))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_request_that_finds_no_thread_is_refused() -> None:
    done = threading.Event()

    def work(body: bytes, call: Cancellation) -> Steps[Answer]:
        yield NEEDS_A_THREAD
        done.wait(60)
        return Answer(200, body)

    async def three_at_a_time() -> list[Answer]:
        limited = calls.Calls(Settings(max_pending_requests=2))
        answers = [limited.answered(request(), work, azure.refuse) for _ in range(3)]
        tasks = [asyncio.create_task(answer) for answer in answers]
        refused, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(waiting) == 2
        done.set()
        await asyncio.wait(waiting)
        after = await limited.answered(request(), work, azure.refuse)
        return [*(task.result() for task in refused), after]

    refused, after = asyncio.run(three_at_a_time())
    assert (refused.status, b"max_pending_requests (2)" in refused.body) == (429, True)
    assert after.status == 200


@pytest.mark.parametrize("most", [0, 5])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_work_has_the_context_of_its_request(most: int, content: bytes) -> None:
    def work(body: bytes, call: Cancellation) -> Steps[Answer]:
        before = NAME.get()
        yield NEEDS_A_THREAD
        return Answer(200, f"{before} {NAME.get()}".encode())

    async def named(each: calls.Calls, name: str) -> bytes:
        NAME.set(name)
        return (await each.answered(request(content), work, azure.refuse)).body

    async def two() -> list[bytes]:
        each = calls.Calls(Settings(max_pending_requests=most))
        return await asyncio.gather(named(each, "a"), named(each, "b"))

    assert asyncio.run(two()) == [b"a a", b"b b"]


@pytest.mark.parametrize(
    ("content", "threads"),
    [(SMALL, [True, False]), (LARGE, [False, False])],
    ids=["small", "large"],
)
def test_what_is_small_begins_on_the_loop(content: bytes, threads: list[bool]) -> None:
    on_the_loop: list[bool] = []

    def work(body: bytes, call: Cancellation) -> Steps[Answer]:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        yield NEEDS_A_THREAD
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return Answer(200, body)

    async def one() -> Answer:
        return await calls.Calls(Settings()).answered(request(content), work, azure.refuse)

    assert asyncio.run(one()).body == content
    assert on_the_loop == threads


def test_the_loop_answers_others_while_one_waits() -> None:
    vectors: Future[bytes] = Future()

    def waiting(body: bytes, call: Cancellation) -> Steps[Answer]:
        yield Wait(vectors, None)
        return Answer(200, vectors.result())

    def quick(body: bytes, call: Cancellation) -> Steps[Answer]:
        return Answer(200, body)
        yield NEEDS_A_THREAD

    async def both() -> list[bytes]:
        each = calls.Calls(Settings(max_pending_requests=2))
        first = asyncio.create_task(each.answered(request(), waiting, azure.refuse))
        await asyncio.sleep(0)
        second = await each.answered(request(), quick, azure.refuse)
        assert not first.done()
        threading.Timer(0.01, vectors.set_result, [b"late"]).start()
        return [second.body, (await first).body]

    assert asyncio.run(both()) == [SMALL, b"late"]


def test_a_request_that_the_end_of_the_server_cuts_off_ends_its_steps() -> None:
    never: Future[None] = Future()
    seen: list[Any] = []

    def work(body: bytes, call: Cancellation) -> Steps[Answer]:
        try:
            yield Wait(never, None)
        finally:
            seen.append("closed")
            seen.append(call)
        return Answer(200, body)

    asyncio.run(cut_off(work))
    closed, call = seen
    assert closed == "closed"
    assert call.is_cancelled


# -- waits ---------------------------------------------------------------------------------------


def test_futures_that_are_completed_together_wake_the_loop_once() -> None:
    futures: list[Future[int]] = [Future() for _ in range(50)]

    async def all_of_them() -> list[str]:
        loop, wakes, woken = asyncio.get_running_loop(), Wakes(), []
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: woken.append("") or wake(*given)  # type: ignore
        waits = [asyncio.create_task(wakes.wait(Wait(future, None))) for future in futures]
        for _ in range(2):
            await asyncio.sleep(0)
        for number, future in enumerate(futures):
            future.set_result(number)
        await asyncio.wait_for(asyncio.gather(*waits), 60)
        await wakes.wait(Wait(futures[0], None))  # which is done
        return woken

    assert len(asyncio.run(all_of_them())) == 2


def test_a_wait_ends_with_its_time_and_with_a_failure() -> None:
    async def both() -> None:
        wakes, future = Wakes(), Future[None]()
        await wakes.wait(Wait(future, 0.01))
        assert not future.done()
        future.set_exception(ValueError("a pass failed"))
        await wakes.wait(Wait(future, 60))

    asyncio.run(both())


# -- what runs on the loop -----------------------------------------------------------------------

PLAIN, MOJIBAKE = "a red apple", "Ã©"


@pytest.mark.parametrize(
    ("cells", "is_light"),
    [
        ({"text": PLAIN}, True),
        ({"text": "Ünïcode 苹果"}, True),
        ({"text": 3}, True),
        ({}, True),
        ({"image": "AAAA"}, False),  # would wait for a decoder
        ({"image": "data:,x"}, False),
        ({"image": "http://10.0.0.1/"}, False),
        ({"image": "no image"}, False),
        ({"text": PLAIN * 400}, False),
        ({"text": MOJIBAKE * 200}, False),
        ({"text": "&amp;" * 100}, False),
    ],
    ids=str,
)
def test_only_a_few_short_texts_run_on_the_loop(
    cells: dict[str, object], is_light: bool, embedder: Embedder
) -> None:
    body = json.dumps(
        {"input_data": {"columns": [*cells] or ["text"], "data": [[*cells.values()]]}}
    )
    message = Message(body.encode(), "application/json")
    models = Models.of({"": embedder})
    steps = endpoint.answering(models, azure.SCORE, message, None, Cancellation())
    try:
        step = next(steps)
    except StopIteration as end:  # each row has failed
        step = end.value
    finally:
        steps.close()
    assert (step is not NEEDS_A_THREAD) == is_light


def test_many_rows_and_labels_run_on_a_thread(embedder: Embedder) -> None:
    models = Models.of({"": embedder})
    bodies: list[dict[str, object]] = [
        {"input_data": [{"text": PLAIN}] * 9},
        {"input_data": [{"text": PLAIN}], "params": {"labels": ["a", "b"]}},
    ]
    for body in bodies:
        message = Message(json.dumps(body).encode(), "application/json")
        steps = endpoint.answering(models, azure.SCORE, message, None, Cancellation())
        assert next(steps) is NEEDS_A_THREAD
        steps.close()


def test_a_pass_that_outlives_the_server_tells_nobody(caplog: pytest.LogCaptureFixture) -> None:
    vectors: Future[None] = Future()

    def work(body: bytes, call: Cancellation) -> Steps[Answer]:
        with call.interrupting(vectors.cancel):
            yield Wait(vectors, None)
        return Answer(200, body)

    asyncio.run(cut_off(work))
    assert vectors.cancelled(), "nothing is left to tell the loop, which is closed"
    assert not caplog.text
