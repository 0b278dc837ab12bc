"""Requests of one row each: rates and times by number of clients, beside one stream offline.

A lone client is compared with what its row takes without a server: a text with a lone pass, an
image in base64 with decoding and a lone pass, a URL with the time that its server takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.server import offline, payloads, servers
from benchmarks.server.clients import Stream, summary
from benchmarks.server.context import LATENCY, Context, Line, Report
from benchmarks.server.payloads import Row

WARM_UP = 0.25  # of the seconds that count, before them


def measure(
    context: Context,
    clients: Sequence[int],
    kinds: Sequence[str],
    checkouts: Mapping[str, Path],
    turns: int = 1,
    count: int = 2000,
) -> Report:
    """checkouts: code by the name that it has in the table. count: of texts; of images a tenth."""
    lines: list[Line] = []
    for kind in kinds:
        rows = payloads.rows(kind, count if kind == "texts" else max(64, count // 10), context.urls)
        for _ in range(turns):
            for name, checkout in checkouts.items():
                lines += _lines(context, kind, rows, clients, (name, checkout))
    return Report(lines, [f"{line}" for line in lines if line["other answers"]])


def _lines(
    context: Context,
    kind: str,
    rows: Sequence[Row],
    clients: Sequence[int],
    code: tuple[str, Path],
) -> Iterator[Line]:
    name, checkout = code
    alone = in_one_stream(context, checkout, rows)
    floor = 1000 * (alone["alone"] or LATENCY)
    requests = payloads.singles(rows)
    for number in clients:
        with servers.own(context.model, context.environment, checkout=checkout) as server:
            line = answered(context, server.port, requests, number)
        yield {
            "rows": kind,
            "code": name,
            **line,
            "offline rows/s": alone["rate"],
            "share of offline": line["rows/s"] / alone["rate"],
            "alone ms": floor,
            "p50 over alone": line["p50 ms"] / floor,
        }


def answered(context: Context, port: int, requests: Sequence[bytes], clients: int) -> Line:
    """What clients of a running server meet, after some seconds that do not count."""
    seconds = (1 + WARM_UP) * context.seconds
    (answers,) = context.load.run(Stream(port, requests, clients, seconds=seconds))
    begin = min(answer.began for answer in answers) + WARM_UP * context.seconds
    met = summary(answers, begin, begin + context.seconds)
    return {
        "clients": clients,
        "rows/s": met.rate,
        "p50 ms": met.p50,
        "p95 ms": met.p95,
        "p99 ms": met.p99,
        "other answers": sum(answer.status != 200 for answer in answers),
    }


def in_one_stream(context: Context, checkout: Path, rows: Sequence[Row]) -> dict[str, float]:
    """What `offline` says, by the code in a checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.json"
        file.write_text(json.dumps(list(rows)))
        command = [sys.executable, "-P", offline.__file__, str(context.model.resolve()), str(file)]
        environment = {**os.environ, **context.environment, "PYTHONPATH": str(checkout)}
        done = subprocess.run(
            command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
    result: dict[str, float] = json.loads(done.stdout)
    return result
