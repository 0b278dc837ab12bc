"""How long a call keeps the interpreter's lock, so that no other thread of its process runs."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable

_TRIES = 9
_LOOK = 0.0005  # seconds between two tries to run


def longest_hold(work: Callable[[], object], enough: float) -> float:
    """Seconds of its processor time that `work` took at most while another thread wanted to run.

    Not by a clock on the wall: on a busy machine other processes' turns would count. The least of a
    few tries, up to the first below `enough`: the other thread, too, may have to wait until a core
    is free.
    """
    least = math.inf
    for _ in range(_TRIES):
        least = min(least, _hold(work))
        if least < enough:
            break
    return least


def _hold(work: Callable[[], object]) -> float:
    clocks: list[int] = []
    known, begin, done = threading.Event(), threading.Event(), threading.Event()

    def run() -> None:
        clocks.append(time.pthread_getcpuclockid(threading.get_ident()))
        known.set()
        begin.wait()
        work()
        times.append(time.thread_time())
        done.set()
        end.wait()

    times: list[float] = []
    end = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    known.wait()
    times.append(time.clock_gettime(clocks[0]))
    begin.set()
    while not done.wait(_LOOK):
        times.append(time.clock_gettime(clocks[0]))
    end.set()
    thread.join()
    return max(after - before for before, after in itertools.pairwise(times))
