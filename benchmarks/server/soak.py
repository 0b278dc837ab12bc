"""Hours of mixed requests: what grows, what fails, and whether vectors stay what they were.

Memory, open files and threads are read while nothing is under way, after each of some slices.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.server import payloads, vectors, watch
from benchmarks.server.bad_requests import SETTINGS, cases, image_servers
from benchmarks.server.clients import Answer, Stream
from benchmarks.server.context import Context, Line, Report
from benchmarks.server.poison import asked_alone, good_requests, precision
from benchmarks.server.vectors import TOLERANCE, Vectors
from score.settings import MIB

SLICES = 20
WARM_UP = 4  # slices
_BAD = 40  # bad cases of the mix

_MOST_GROWTH = 5.0  # percent of the memory


def measure(context: Context, minutes: float, slices: int = SLICES) -> Report:
    """Texts, images in base64 and by URL, several rows, bad requests, and probes."""
    lines: list[Line] = []
    with image_servers() as urls, context.serving(**SETTINGS) as server:
        tolerance = TOLERANCE[precision(server)]
        everything = list(cases(urls))
        bad = [case.request for case in everything[:: max(1, len(everything) // _BAD)]]
        probes = good_requests(context.urls)[:9]
        expected = asked_alone(context.load, server, probes)
        seconds = 60 * minutes / slices
        mix = _mix(server.port, context.urls, seconds)
        mix += [Stream(server.port, bad, 1, seconds=seconds)]
        mix += [Stream(server.port, probes, 1, seconds=seconds, keep=10)]
        for number in range(slices):
            streams = context.load.run(*mix)
            held = watch.sample(server.process.pid)
            lines.append(
                {
                    "minute": (number + 1) * seconds / 60,
                    "memory MiB": held.memory / MIB,
                    "files": held.files,
                    "threads": held.threads,
                    **_counted([answer for stream in streams for answer in stream]),
                    "drift": drift(streams[-1], expected),
                }
            )
    growth = grown([line["memory MiB"] for line in lines])
    for line in lines:
        line["growth %"] = growth if line is lines[-1] else ""
    return Report(lines, _faults(lines, growth, tolerance))


def _mix(port: int, urls: Sequence[str], seconds: float) -> list[Stream]:
    several = [payloads.score(payloads.rows("texts", 32, urls))]
    mix = [Stream(port, several, 1, seconds=seconds)]
    for kind, clients in (("texts", 4), ("base64", 2), ("urls", 2)):
        requests = payloads.singles(payloads.rows(kind, 200, urls))
        mix.append(Stream(port, requests, clients, seconds=seconds))
    return mix


def _counted(answers: Sequence[Answer]) -> Line:
    return {
        "answers": len(answers),
        "2xx": sum(200 <= answer.status < 300 for answer in answers),
        "4xx": sum(400 <= answer.status < 500 for answer in answers),
        "5xx": sum(answer.status >= 500 for answer in answers),
        "no answer": sum(answer.status == 0 for answer in answers),
    }


def drift(answers: Sequence[Answer], expected: Sequence[Vectors]) -> float:
    """The largest difference of a probe's vectors from what they were at the beginning."""
    found = {(answer.request, answer.body) for answer in answers if answer.body}
    return max(
        (vectors.difference(vectors.of(body), expected[number]) for number, body in found),
        default=0.0,
    )


def grown(memory: Sequence[float]) -> float:
    """Percent, from the slices after the warm-up to the last ones."""
    first, last = memory[WARM_UP : WARM_UP + 3], memory[-3:]
    return 100 * (statistics.median(last) / statistics.median(first) - 1)


def _faults(lines: Sequence[Line], growth: float, tolerance: float) -> list[str]:
    totals = {name: sum(line[name] for line in lines) for name in ("5xx", "no answer")}
    said = [f"{total} times {name}" for name, total in totals.items() if total]
    if (most := max(line["drift"] for line in lines)) > tolerance:
        said.append(f"vectors differ by {most:.2g}")
    if growth > _MOST_GROWTH:
        said.append(f"memory grew by {growth:.1f} %")
    return said
