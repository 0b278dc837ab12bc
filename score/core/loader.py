"""The thread that loads and unloads the models of a server, one after the other.

One at a time: two that are loaded at once would take longer each, and more memory than either
needs when it is loaded.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from score.errors import ModelUnavailable

log = logging.getLogger(__name__)

Job = Callable[[], None]


class Loader:
    """Runs jobs in order. Its thread is started by the first one. Safe to share between threads.

    The thread lives until `close`: a model that it has loaded has computed its probes, with OpenMP
    threads of its own. If it ended, so would they, and libgomp would let the encoder's threads
    spin, seeing a core for each: on a busy machine passes then take ten times as long.
    """

    def __init__(self, most_waiting: int = 0) -> None:
        """`most_waiting`: requests that may wait for models; 0: no limit."""
        self._most_waiting, self._waiting = most_waiting, 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = self._is_busy = False

    def submit(self, job: Job) -> None:
        """Runs a job after those before it."""
        with self._lock:
            if self._thread is None:
                # A daemon: nothing can stop the loading of a model, and the process may end.
                thread = threading.Thread(target=self._run, name="load", daemon=True)
                thread.start()
                self._thread = thread  # where the system starts none, the next job tries again
        self._jobs.put(job)

    def close(self) -> None:
        """Ends the thread after the job that it runs, if any."""
        self._is_closed = True
        self._jobs.put(None)

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return self._is_busy

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which a request waits for a model. Raises ModelUnavailable where too many do:
        each is one of the requests that the process takes on, which other models need."""
        with self._lock:
            if 0 < self._most_waiting <= self._waiting:
                raise ModelUnavailable(
                    f"{self._waiting} requests already wait for models that are being loaded"
                )
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _run(self) -> None:
        while (job := self._jobs.get()) and not self._is_closed:
            self._is_busy = True
            try:
                job()
            except BaseException:  # else all later jobs would wait for ever
                log.exception("a model cannot be loaded or unloaded")
            self._is_busy = False
