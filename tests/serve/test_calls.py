"""Requests on threads."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest
from starlette.requests import Request
from starlette.types import Message

from score.concurrency.cancellation import Cancellation
from score.core.endpoint import Answer
from score.dialects import azure
from score.serve import calls
from score.settings import Settings

NAME: ContextVar[str] = ContextVar("name", default="")


def request() -> Request:
    async def body() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    return Request({"type": "http", "headers": []}, body)


def test_a_request_that_finds_no_thread_is_refused() -> None:
    done = threading.Event()

    def work(body: bytes, call: Cancellation) -> Answer:
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
def test_threads_have_the_context_of_their_request(most: int) -> None:
    def work(body: bytes, call: Cancellation) -> Answer:
        return Answer(200, NAME.get().encode())

    async def named(each: calls.Calls, name: str) -> bytes:
        NAME.set(name)
        return (await each.answered(request(), work, azure.refuse)).body

    async def two() -> list[bytes]:
        each = calls.Calls(Settings(max_pending_requests=most))
        return await asyncio.gather(named(each, "a"), named(each, "b"))

    assert asyncio.run(two()) == [b"a", b"b"]
