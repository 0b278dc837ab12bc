"""Which failed downloads are tried again, how often, and after how long.

A download is retried where its error is `retryable`, up to `max_retries` times. It waits
`retry_wait` seconds, twice as long each time, or as long as the server's `Retry-After` asks for,
but never beyond the row's deadline. A host that is down by then is not asked again: the row has the
error of its latest attempt.
"""

from __future__ import annotations

import email.utils
import http.client
from collections.abc import Callable
from datetime import UTC, datetime

from score.errors import FetchFailed, HostDown, RowError
from score.fetch.deadline import Deadline
from score.settings import Settings

OVERLOADED = frozenset({429, 503})
"""Statuses by which a server asks for fewer requests."""

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which another attempt may succeed."""


class StatusFailed(FetchFailed):
    """A status that brings no image. `retry_after`: the seconds that the server asks to wait."""

    def __init__(self, message: str, *, retryable: bool, retry_after: float) -> None:
        super().__init__(message, retryable=retryable)
        self.retry_after = retry_after


def with_retries(attempt: Callable[[], bytes], settings: Settings, deadline: Deadline) -> bytes:
    """The result of the first attempt that succeeds.

    Raises the RowError of the last one, Cancelled, RequestTimeout.
    """
    wait = settings.retry_wait
    failure: RowError | None = None
    for retries_left in range(settings.max_retries, -1, -1):
        try:
            return attempt()
        except HostDown:
            if failure:
                raise failure from None
            raise
        except RowError as error:
            failure = error
            pause = max(wait, error.retry_after if isinstance(error, StatusFailed) else 0.0)
            if not error.retryable or not retries_left or pause >= deadline.left():
                raise
        deadline.cancellation.sleep(pause)
        wait *= 2
    raise AssertionError("the last attempt returns or raises")


def is_retryable(status: int) -> bool:
    """Whether another attempt may succeed after this HTTP status.

    An undefined status counts as 500, as does one above 599 (RFC 9110, 15 and 15.6).
    """
    return status in RETRYABLE or (status >= 500 and status not in http.client.responses)


def retry_after(header: str) -> float:
    """The seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3); 0 without one."""
    if header.strip().isdecimal():
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
