"""`kill -9` of one of two worker processes under load: who is affected, and for how long.

Only requests on connections that the killed worker had accepted may fail.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.server import payloads
from benchmarks.server.clients import Answer, Stream, summary
from benchmarks.server.context import Context, Line, Report
from benchmarks.server.servers import Server

CLIENTS = 16
_READY = "is ready"
_PROCESS = re.compile(r"worker \d+ \(process (\d+)\) is ready")


def measure(context: Context, times: int, count: int = 500) -> Report:
    """One server of two workers; one of them is killed that many times, in turns."""
    requests = payloads.singles(payloads.rows("texts", count, context.urls))
    lines: list[Line] = []
    faults: list[str] = []
    with context.serving("--workers", "2") as server:
        server.wait_for(_READY, 2)
        for number in range(times):
            line, strange = _killed(context, server, requests, starts=2 + number)
            lines.append({"kill": number + 1, **line})
            faults += [f"kill {number + 1}: {said}" for said in strange]
    return Report(lines, faults)


def _killed(
    context: Context, server: Server, requests: Sequence[bytes], starts: int
) -> tuple[Line, Sequence[str]]:
    """starts: of workers so far."""
    victim = processes(server)[-2]
    stream = Stream(server.port, requests, CLIENTS, seconds=2 * context.seconds)
    sending = context.load.begin(stream)
    time.sleep(context.seconds)
    theirs = set(clients_of(victim, server.port))
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    back = server.wait_for(_READY, starts + 1) - killed
    (answers,) = sending.result()
    failed = [answer for answer in answers if answer.status != 200]
    strange = [answer for answer in failed if answer.client not in theirs]
    line = {
        "connections of the killed": len(theirs),
        "failed of them": len(failed) - len(strange),
        "failed of others": len(strange),
        "s until back": back,
        "p99 ms before": summary(answers, 0.0, killed).p99,
        "p99 ms after": summary(answers, killed).p99,
    }
    return line, [_said(answer, killed) for answer in strange]


def processes(server: Server) -> list[int]:
    """The process ids of its workers, in the order in which they became ready."""
    found = (_PROCESS.search(line) for _, line in server.log)
    return [int(match[1]) for match in found if match]


def clients_of(pid: int, port: int) -> Iterator[int]:
    """The ports of the other ends of a process's connections to `port`."""
    inodes = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(file))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(end.partition(":")[2], 16) for end in fields[1:3])
        if local == port and remote and f"socket:[{fields[9]}]" in inodes:
            yield remote


def _said(answer: Answer, killed: float) -> str:
    return (
        f"a request of another connection: {answer.status or answer.fault}, sent "
        f"{1000 * (answer.began - killed):.1f} ms after the kill"
    )
