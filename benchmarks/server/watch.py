"""What a process and those that it started hold, sampled. Needs Linux's /proc."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_PAGE = 4096


class Sample(NamedTuple):
    """time: by `time.monotonic`. memory: bytes resident."""

    time: float
    memory: int
    files: int
    threads: int


def family(pid: int) -> list[int]:
    """A process, its children, theirs, and so on."""
    pids = [pid]
    for parent in pids:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    return pids


def sample(pid: int) -> Sample:
    """What they hold now; those that have just ended hold nothing."""
    memory = files = threads = 0
    for each in family(pid):
        process = Path(f"/proc/{each}")
        with suppress(OSError):
            memory += int((process / "statm").read_text().split()[1]) * _PAGE
            files += len(list((process / "fd").iterdir()))
            threads += len(list((process / "task").iterdir()))
    return Sample(time.monotonic(), memory, files, threads)


@contextmanager
def watched(pid: int, interval: float) -> Iterator[list[Sample]]:
    """A list that grows by a sample each `interval` seconds."""
    with looking(lambda: sample(pid), interval) as samples:
        yield samples
    samples.append(sample(pid))


@contextmanager
def looking(look: Callable[[], T], interval: float) -> Iterator[list[T]]:
    """A list that grows by what `look` sees, at once and then each `interval` seconds."""
    seen, over = [look()], threading.Event()

    def watch() -> None:
        while not over.wait(interval):
            seen.append(look())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
