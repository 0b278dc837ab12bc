"""URL → bytes: a GET request with retries and redirects, all within the row's deadline.

A download takes, in turn: a slot at its host, one of `fetch_workers` slots, bytes of the budget for
its body. It holds no slot while it pauses for a retry or a redirect, so that it delays no other.
"""

from __future__ import annotations

import http.client
import time

from urllib3.response import BaseHTTPResponse
from urllib3.util import Url

from score.errors import FetchFailed, FetchTimeout, RowError
from score.fetch import content_encoding, network_errors, redirects, urls
from score.fetch.byte_budget import ByteBudget
from score.fetch.cells import check_size
from score.fetch.connections import Connections
from score.fetch.deadline import Deadline
from score.fetch.host_concurrency import Host, Hosts
from score.fetch.redirects import Redirect
from score.fetch.retries import OVERLOADED, StatusFailed, is_retryable, retry_after, with_retries
from score.fetch.slots import Slots
from score.settings import Settings

_READ = 64 * 1024  # bytes
_IMAGES = frozenset({200, 203})  # 203: a proxy has changed the body


class Downloader:
    """Downloads images. Safe to share between threads."""

    def __init__(self, settings: Settings, budget: ByteBudget) -> None:
        """`budget`: what bodies reserve their size of. Raises SettingError."""
        self._settings = settings
        self._budget = budget
        self._connections = Connections(settings)
        self._hosts = Hosts(settings.per_host, longest_pause=settings.row_deadline / 2)
        self._slots = Slots(settings.fetch_workers)

    def download(self, url: str, deadline: Deadline) -> bytes:
        """The body behind a URL, at most `max_image_bytes`. Raises RowError."""
        most = self._settings.max_redirects

        def attempt() -> bytes:
            return redirects.follow(
                url, lambda target: self._request(target, deadline), most, deadline
            )

        return with_retries(attempt, self._settings, deadline)

    def _request(self, target: Url, deadline: Deadline) -> bytes | Redirect:
        """One request, once a slot is free."""
        with (
            self._hosts.slot(urls.server(target), deadline) as host,
            self._slots.slot(deadline),
        ):
            return self._get(target, host, deadline)

    def _get(self, target: Url, host: Host, deadline: Deadline) -> bytes | Redirect:
        """One request: its body, or where it redirects to. Tells the host how it went."""
        began = time.monotonic()
        try:
            with self._connections.get(target, deadline) as answer:
                pause = retry_after(answer.headers.get("Retry-After", ""))
                if answer.status in OVERLOADED:
                    host.shed(began, pause)
                else:
                    host.answered(began)
                if answer.status in redirects.STATUSES and "Location" in answer.headers:
                    return Redirect(redirects.location(answer, target), pause)
                return self._body(answer, target, pause, deadline)
        except FetchTimeout:
            host.shed(began)
            raise
        except network_errors.FOREIGN as error:
            deadline.cancellation.check()  # its socket was shut down
            failure = network_errors.translate(error, target, self._settings, deadline)
            if failure.retryable:
                host.shed(began)
            raise failure from error

    def _body(
        self, answer: BaseHTTPResponse, target: Url, pause: float, deadline: Deadline
    ) -> bytes:
        if answer.status not in _IMAGES:
            raise _status_error(answer.status, target, pause)
        limit = self._settings.max_image_bytes
        coding = answer.headers.get("Content-Encoding", "")
        declared = answer.headers.get("Content-Length")
        check_size(int(declared or 0), limit)
        reserved = limit if coding or declared is None else int(declared)
        self._budget.reserve(reserved, deadline)
        kept = 0
        try:
            body = bytearray()
            while chunk := answer.read1(_READ):
                body += chunk
                check_size(len(body), limit)
            data = content_encoding.decoded(bytes(body), coding, limit)
            check_size(len(data), limit)
            kept = len(data)
        finally:
            # All of it after a failure: a row that waits, for its retry or for more bytes, must
            # hold none that another row waits for.
            self._budget.release(reserved - kept)
        return data


def _status_error(status: int, target: Url, pause: float) -> RowError:
    if status in redirects.STATUSES:
        return FetchFailed(f"{urls.where(target)} redirects to nowhere")
    reason = http.client.responses.get(status, "")
    return StatusFailed(
        f"{urls.where(target)} answered {status} {reason}".rstrip(),
        retryable=is_retryable(status),
        retry_after=pause,
    )
