"""The same requests to this server, to its entry script under Azure's server, and to the
straightforward entry script under Azure's server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.server import payloads, servers, watch
from benchmarks.server.context import Context, Line, Report
from benchmarks.server.rates import answered
from benchmarks.server.servers import ROOT, Server
from score.settings import MIB

OWN, ENTRY, WRAPPER = "score serve", "score/online.py, Azure's server", "wrapper, Azure's server"


def measure(context: Context, clients: int, kinds: Sequence[str], count: int = 2000) -> Report:
    """A server after the other, each with all kinds of rows."""
    lines: list[Line] = []
    for name in (OWN, ENTRY, WRAPPER):
        with _serving(context, name) as server:
            for kind in kinds:
                rows = payloads.rows(kind, count if kind == "texts" else 64, context.urls)
                line = answered(context, server.port, payloads.singles(rows), clients)
                memory = watch.sample(server.process.pid).memory / MIB
                lines.append({"rows": kind, "server": name, **line, "memory MiB": memory})
    wrappers = {line["rows"]: line["rows/s"] for line in lines if line["server"] == WRAPPER}
    for line in lines:
        line["times the wrapper"] = line["rows/s"] / max(wrappers[line["rows"]], 1e-9)
    return Report(lines, [f"{line}" for line in lines if line["other answers"]])


@contextmanager
def _serving(context: Context, name: str) -> Iterator[Server]:
    script = ROOT / ("score/online.py" if name == ENTRY else "benchmarks/server/wrapper.py")
    started = (
        context.serving()
        if name == OWN
        else servers.azure(script, context.model, context.environment)
    )
    with started as server:
        yield server
