"""What rows cost that are refused by rule alone: a row needs no thread, no look-up, no slot."""

from __future__ import annotations

import threading
import time

import pytest

from score import Embedder, Row
from score.contract.params import Params
from score.fetch.look_up import LookUps

ROWS = 2_000
REPORT = Params(on_error="report")

CELLS = {
    "a private address": "http://10.0.0.1/",
    "another spelling of one": "http://0xa.1/",
    "a private address of IPv6": "http://[::1]/",
    "a port": "http://8.8.8.8:81/",
    "another scheme": "ftp://example.org/",
    "no host": "http:///x",
    "a user": "http://a:b@example.org/",
    "a word": "cat.jpg",
    "a missing value": "nan",
    "a number": 7,
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_row_that_is_refused_by_rule_costs_next_to_nothing(
    cell: object, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(thread: threading.Thread) -> None:
        raise AssertionError(f"{thread.name} was started")

    rows = [Row(image=cell)] * ROWS
    alone = embedder.answer(rows[:1], REPORT)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", started)
        patch.setattr(LookUps, "addresses", started)
        began = time.process_time()
        records = embedder.answer(rows, REPORT)
        assert (time.process_time() - began) / ROWS < 0.002
    assert {(type(r.error), str(r.error)) for r in (*alone, *records)} == {
        (type(alone[0].error), str(alone[0].error))
    }
    assert alone[0].error is not None
