"""The bodies that arrive: bounded each, and all together."""

from __future__ import annotations

import threading

import pytest

from score.core.bodies import Bodies
from score.errors import Overloaded, RequestTooLarge
from score.settings import Settings

LIMITS = Settings(max_request_bytes=100, max_pending_bytes=150)


def test_a_body_is_refused_by_what_it_declares() -> None:
    bodies = Bodies(LIMITS)
    with pytest.raises(RequestTooLarge, match="larger than 100 bytes"), bodies.one("101"):
        pass
    for declared in ("100", None, "", "many"):
        with bodies.one(declared) as body:
            body.add(100)


def test_a_body_is_refused_when_its_first_byte_too_many_arrives() -> None:
    with Bodies(LIMITS).one(None) as body:
        body.add(60)
        body.add(40)
        with pytest.raises(RequestTooLarge):
            body.add(1)


def test_bodies_are_bounded_together_until_they_are_answered() -> None:
    bodies = Bodies(LIMITS)
    with bodies.one(None) as first:
        first.add(90)
        with pytest.raises(Overloaded, match="max_pending_bytes"), bodies.one("61"):
            pass
        with bodies.one("60") as second:
            second.add(60)
            with pytest.raises(Overloaded):
                second.add(1)
        with bodies.one("60"):
            pass
    with bodies.one("100") as third:
        third.add(100)


def test_one_body_alone_may_be_larger_than_all_together() -> None:
    """What is admitted later refuses it with a better message."""
    with Bodies(Settings(max_request_bytes=100, max_pending_bytes=50)).one("100") as body:
        body.add(100)


def test_threads_do_not_take_the_same_room() -> None:
    bodies, refused = Bodies(LIMITS), []

    def read() -> None:
        try:
            with bodies.one(None) as body:
                body.add(10)
                together.wait()
        except Overloaded:
            refused.append(1)
            together.wait()

    together = threading.Barrier(20)
    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
