"""Far more requests than can be answered: what becomes of those that are taken, and afterwards.

Three open streams of single texts, one after the other: at half of the capacity that 64 clients
reach, at five times of it, and at a tenth until answers take again what they took at half.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.server import payloads, watch
from benchmarks.server.clients import UNSENT, Answer, Stream, summary
from benchmarks.server.context import Context, Line, Report
from benchmarks.server.watch import Sample
from score.settings import MIB

TIMES = 5.0  # the capacity
CONNECTIONS = 500  # of the load, which the server's `max_connections` allows
CLIENTS = 64  # that measure the capacity
WINDOW = 1.0  # seconds whose p50 says whether it is over


def measure(context: Context, count: int = 2000) -> Report:
    """For `context.seconds` of overload, and half as long before it and after it."""
    requests = payloads.singles(payloads.rows("texts", count, context.urls))
    with context.serving() as server:
        (warm,) = context.load.run(
            Stream(server.port, requests, CLIENTS, seconds=context.seconds / 2)
        )
        capacity = summary(warm).rate
        with watch.watched(server.process.pid, 0.1) as samples:
            phases = [
                context.load.run(
                    Stream(server.port, requests, CONNECTIONS, rate=share * capacity, seconds=took)
                )[0]
                for share, took in (
                    (0.5, context.seconds / 2),
                    (TIMES, context.seconds),
                    (0.1, context.seconds / 2),
                )
            ]
    half, over, after = phases
    lines = [
        _line(name, capacity, answers, samples)
        for name, answers in (("half", half), ("overload", over), ("after", after))
    ]
    ratio = lines[1]["p99 ms"] / lines[0]["p99 ms"]
    back = recovery(after, max(answer.ended for answer in over), 2 * summary(half).p50 / 1000)
    for line in lines:
        line["p99 over half's"] = ratio if line is lines[1] else ""
        line["s until back"] = back if line is lines[2] else ""
    return Report(lines, _faults(over))


def _line(name: str, capacity: float, answers: Sequence[Answer], samples: Sequence[Sample]) -> Line:
    sent = [answer for answer in answers if answer.fault != UNSENT]
    refused = [answer for answer in sent if answer.status == 429]
    begin, end = min(answer.began for answer in sent), max(answer.ended for answer in sent)
    held = [one.memory / MIB for one in samples if begin <= one.time <= end] or [0.0]
    met = summary(sent)
    return {
        "load": name,
        "capacity/s": capacity,
        "sent/s": len(sent) / (end - begin),
        "unsent": len(answers) - len(sent),
        "rows/s": met.rate,
        "p50 ms": met.p50,
        "p99 ms": met.p99,
        "429": len(refused),
        "429 %": 100 * len(refused) / len(sent),
        "with Retry-After %": 100 * sum(a.retry_after for a in refused) / max(1, len(refused)),
        "other answers": sum(answer.status not in (200, 429) for answer in sent),
        "memory first MiB": held[0],
        "memory peak MiB": max(held),
        "memory last MiB": held[-1],
    }


def recovery(answers: Sequence[Answer], ended: float, wanted: float) -> float:
    """Seconds from a load's end until the p50 of a window of answers is at most `wanted` s.

    Not a number if it never is.
    """
    last = max(answer.ended for answer in answers)
    begin = min(answer.began for answer in answers)
    while begin < last:
        met = summary(answers, begin, begin + WINDOW)
        if met.p50 <= 1000 * wanted:
            return max(0.0, begin - ended)
        begin += WINDOW / 4
    return float("nan")


def _faults(answers: Sequence[Answer]) -> list[str]:
    mute = sum(answer.status == 429 and not answer.retry_after for answer in answers)
    other = {str(a.status or a.fault) for a in answers} - {"200", "429", UNSENT}
    said = [f"{mute} answers 429 without Retry-After"] if mute else []
    return said + [f"answers under overload: {', '.join(sorted(other))}"] * bool(other)
