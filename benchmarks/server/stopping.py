"""SIGTERM under load, many times: every request that was sent must get a whole answer.

A request is lost if it was sent on an established connection and no whole answer came. The kernel
establishes connections that the server has not accepted yet: one that comes in the moment in which
the listener is closed may be reset, which no server can prevent. Each lost request is reported with
its time beside SIGTERM's and the first refused connection's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from benchmarks.server import payloads
from benchmarks.server.clients import REFUSED, Answer, Stream
from benchmarks.server.context import Context, Line, Report

CLIENTS = 16


def measure(context: Context, times: int, count: int = 500) -> Report:
    """As many servers, one after the other, each stopped at another moment of its load."""
    requests = payloads.singles(payloads.rows("texts", count, context.urls))
    dice = random.Random(0)
    lines, faults = [], []
    for number in range(times):
        line, lost = _stopped(context, requests, 0.3 + dice.random() * context.seconds)
        lines.append({"stop": number + 1, **line})
        faults += [f"stop {number + 1}: {said}" for said in lost]
        if line["exit code"]:
            faults.append(f"stop {number + 1}: exit code {line['exit code']}")
    return Report(lines, faults)


def _stopped(
    context: Context, requests: Sequence[bytes], after: float
) -> tuple[Line, Sequence[str]]:
    with context.serving() as server:
        stream = Stream(server.port, requests, CLIENTS, seconds=60, until_refused=True)
        sending = context.load.begin(stream)
        time.sleep(after)
        told = time.monotonic()
        server.terminate()
        code = server.process.wait(60)
        took = time.monotonic() - told
        (answers,) = sending.result()
    closed = min((a.ended for a in answers if a.fault == REFUSED), default=told + took)
    lost = [answer for answer in answers if answer.fault and answer.fault != REFUSED]
    line = {
        "answered before": sum(a.status == 200 and a.ended < told for a in answers),
        "answered after": sum(a.status == 200 and a.ended >= told for a in answers),
        "503": sum(answer.status == 503 for answer in answers),
        "others": sum(answer.status not in (0, 200, 503) for answer in answers),
        "lost": len(lost),
        "exit code": code,
        "s to exit": took,
    }
    return line, [_said(answer, told, closed) for answer in lost]


def _said(answer: Answer, told: float, closed: float) -> str:
    sent, refused = 1000 * (answer.began - told), 1000 * (closed - told)
    return (
        f"a request is {answer.fault}, sent {sent:.1f} ms after SIGTERM; the first connection was "
        f"refused {refused:.1f} ms after it"
    )
