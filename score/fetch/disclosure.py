"""What the client of a failed download is told, and what the log alone holds.

Whoever chooses URLs must not learn from error messages what cannot be seen from outside: which
names this network's DNS has and where they lead, which machines it has, and which of their ports
are open. So what lies inside has two messages, and the settings alone decide which one it is:

- `NothingPublic`: the URL, or a redirect from it, leads to nothing that may be fetched. The name
  has no address, or none that is public; which of them is the log's.
- `Unreachable`: what `allow_hosts` allows inside gave no HTTP answer. Whether it is down, refuses,
  is silent, or speaks something else is the log's.

A message names the cell's own URL, since a redirect may lead to a name that the client does not
know. Public hosts, and answers in HTTP, are reported as they are.
"""

from __future__ import annotations

import logging
import threading
import time

from score.concurrency.forks import renewing
from score.errors import BlockedHost, FetchFailed, RowError
from score.fetch import urls

log = logging.getLogger(__name__)

_MOST = 100  # lines a minute: clients decide how many downloads fail
_MINUTE = 60.0


class NothingPublic(BlockedHost):
    """Nothing that may be fetched. Its message is for the log."""


class Unreachable(FetchFailed):
    """No HTTP answer from an allowed host inside. Its message is for the log."""

    retryable = True


class Disclosure:
    """Tells clients and the log of failed downloads. Safe to share between threads."""

    def __init__(self) -> None:
        renewing(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._lines = 0

    def told(self, error: RowError, url: str) -> RowError:
        """The error that the client gets; what it may not know is logged. `url`: the cell's."""
        if isinstance(error, NothingPublic):
            shown = self._log(url, error)
            return BlockedHost(
                f"{shown} leads to no public address; the log says where, and SCORE_ALLOW_HOSTS "
                "can allow hosts that are not public"
            )
        if isinstance(error, Unreachable):
            shown = self._log(url, error)
            return FetchFailed(f"{shown} cannot be reached; the log says why", retryable=True)
        return error

    def _log(self, url: str, error: RowError) -> str:
        """Logs an error; returns its URL as messages show it."""
        shown = urls.where(urls.parse(url))
        with self._lock:
            now, left_out = time.monotonic(), self._lines - _MOST
            if now >= self._since + _MINUTE:
                self._since, self._lines = now, 0
            else:
                left_out = 0
            self._lines += 1
            if self._lines > _MOST:
                return shown
        if left_out > 0:
            log.warning("%d failed downloads are not in this log: too many at once", left_out)
        log.warning("%s: %s", shown, error.message)
        return shown
