"""What calls cost in a process of their own: memory, processor time, and what they raised."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_SCRIPT = """
import importlib, json, resource, sys, time
from pathlib import Path
calls = json.load(sys.stdin)
mebibytes, seconds = map(int, sys.argv[1:])
def found(call):
    module, _, name = call.partition(":")
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value
functions = [found(call) for call, *_ in calls]
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + mebibytes * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds,) * 2)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for function, (_, *arguments) in zip(functions, calls):
    before, begun, said = peak(), time.process_time(), ""
    try:
        function(*[Path(a) if isinstance(a, str) else a for a in arguments])
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps([peak() - before, time.process_time() - begun, said]), flush=True)
"""


class Spent(NamedTuple):
    """The cost of a call. mebibytes: by which the process's peak grew; seconds: of processor time;
    said: the type and the message of what it raised, empty for nothing."""

    mebibytes: float
    seconds: float
    said: str


def spent(
    calls: Sequence[Sequence[str | Path | int]], *, mebibytes: int = 1500, seconds: int = 300
) -> list[Spent]:
    """Calls functions, each `module:name` with its arguments (strings are paths), one by one.

    `mebibytes`, `seconds`: at which the process is ended, far above what a test allows.
    """
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(mebibytes), str(seconds)],
        input=json.dumps(calls, default=str),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
    )
    costs = [Spent(*json.loads(line)) for line in result.stdout.splitlines()]
    assert result.returncode == 0, (
        f"ended with {result.returncode} in call {len(costs)}: {result.stderr[-500:]}"
    )
    return costs
