"""Good requests beside bad ones: every good one must get the vectors that it gets alone.

One client sends the bad requests one after the other, others send good ones all the while, and the
server must say all the while that it is ready.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import fixtures
from benchmarks.server import payloads, vectors, watch
from benchmarks.server.bad_requests import GOOD, SETTINGS, Case, cases, image_servers
from benchmarks.server.clients import Answer, Load, Stream
from benchmarks.server.context import Context, Report
from benchmarks.server.servers import Server
from benchmarks.server.vectors import TOLERANCE, Vectors

CLIENTS = 8
_POLL = 0.2  # seconds between questions whether it is ready
_DISTINCT = 24  # good requests of each kind


def measure(context: Context, requests: int, every: int = 1) -> Report:
    """As many requests or more: until each bad case was sent. every: takes each so manieth case."""
    good = good_requests(context.urls)
    with image_servers() as urls, context.serving(**SETTINGS) as server:
        bad = list(cases(urls))[::every]
        tolerance = TOLERANCE[precision(server)]
        alone = asked_alone(context.load, server, good)
        between = asked_alone(context.load, server, [payloads.score([row]) for row in GOOD])
        began = time.monotonic()
        with watch.looking(lambda: server.is_ready, _POLL) as ready:
            (well, badly) = context.load.run(
                Stream(server.port, good, CLIENTS, most=requests - len(bad), keep=1),
                Stream(server.port, [case.request for case in bad], 1, most=len(bad), keep=1),
            )
        took = time.monotonic() - began
    judged = _Judged(tolerance)
    for answer in well:
        judged.good(answer, alone[answer.request])
    for answer in badly:
        judged.bad(answer, bad[answer.request], [*between[0], *between[1]])
    faults = judged.faults + [f"{len(ready) - sum(ready)} times not ready"] * (not all(ready))
    line = {
        "good requests": len(well),
        "bad requests": len(badly),
        "bad cases": len(bad),
        "seconds": took,
        "largest difference": judged.largest,
        "tolerance": tolerance,
        "good answered otherwise": judged.wrong,
        "bad answered otherwise": len(judged.faults) - judged.wrong,
        "asked whether ready": len(ready),
        "not ready": len(ready) - sum(ready),
    }
    return Report([line], faults)


def good_requests(urls: Sequence[str]) -> list[bytes]:
    """Texts, images in base64 and by URL, and requests of several rows."""
    texts, inline, links = (payloads.rows(kind, _DISTINCT, urls) for kind in payloads.KINDS)
    several = [payloads.score(texts[at : at + 8]) for at in range(0, len(texts), 8)]
    mixed = [part for three in zip(texts, inline, links, strict=True) for part in three]
    return [*payloads.singles(mixed), *several]


def precision(server: Server) -> str:
    """That of the server's model."""
    with urllib.request.urlopen(f"http://{fixtures.HERE}:{server.port}/version") as answer:
        return str(json.load(answer)["precision"])


def asked_alone(load: Load, server: Server, requests: Sequence[bytes]) -> list[Vectors]:
    """The vectors of each request, with nothing beside it."""
    (answers,) = load.run(Stream(server.port, requests, most=len(requests), keep=1))
    if bad := [answer for answer in answers if answer.status != 200]:
        raise SystemExit(f"a good request is answered otherwise: {bad[0]}")
    return [vectors.of(answer.body) for answer in answers]


@dataclass
class _Judged:
    """largest: difference of a vector from what it is alone. wrong: good requests."""

    tolerance: float
    largest: float = 0.0
    wrong: int = 0
    faults: list[str] = field(default_factory=list)
    _known: dict[tuple[int, bytes], float] = field(default_factory=dict)

    def good(self, answer: Answer, alone: Vectors) -> None:
        """An answer to a good request."""
        if answer.status != 200:
            said = f"{answer.status or answer.fault} {answer.body[:200]!r}"
        elif (apart := self._apart(answer, alone)) > self.tolerance:
            said = f"vectors differ by {apart:.2g}"
        else:
            return
        self.wrong += 1
        self.faults.append(f"good request {answer.request}: {said}")

    def _apart(self, answer: Answer, alone: Vectors) -> float:
        key = (answer.request, answer.body)
        if key not in self._known:
            self._known[key] = vectors.difference(vectors.of(answer.body), alone)
            self.largest = max(self.largest, self._known[key])
        return self._known[key]

    def bad(self, answer: Answer, case: Case, neighbours: Vectors) -> None:
        """An answer to a bad request, or to one with a bad row between good ones."""
        if answer.status not in case.statuses or b"Traceback" in answer.body:
            said = f"{answer.status or answer.fault} {answer.body[:200]!r}"
        elif not case.codes:
            return
        elif (apart := vectors.difference(vectors.of(answer.body), neighbours)) > self.tolerance:
            said = f"the vectors beside it differ by {apart:.2g}"
        elif (code := _code(json.loads(answer.body)[1])) not in case.codes:
            said = f"its code is {code}, not {' or '.join(sorted(case.codes))}"
        else:
            self.largest = max(self.largest, apart)
            return
        self.faults.append(f"{case.name}: {said}")


def _code(record: Mapping[str, Mapping[str, str]]) -> str:
    return record.get("error", {}).get("code", "none")
