"""URL → bytes: a GET request with retries and redirects, all within the row's deadline.

A download takes, in turn: a slot at its host, one of `fetch_workers` slots, bytes of the budget for
its body. It holds no slot while it pauses for a retry or a redirect, so that it delays no other.
"""

from __future__ import annotations

import time

from urllib3.response import BaseHTTPResponse
from urllib3.util import Url

from score.errors import BadUrl, BlockedHost, FetchFailed, FetchTimeout, RowError
from score.fetch import (
    content_encoding,
    http_status,
    network_errors,
    redirects,
    robots_tag,
    urls,
)
from score.fetch.byte_budget import ByteBudget
from score.fetch.cells import check_size
from score.fetch.circuit_breaker import NotConnected
from score.fetch.connections import Connections, Visit
from score.fetch.deadline import Deadline
from score.fetch.disclosure import Disclosure, Unreachable
from score.fetch.host_concurrency import Host, Hosts
from score.fetch.host_times import HostTimes
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
        self._disclosure = Disclosure()
        self._hosts = Hosts(settings.per_host, longest_pause=settings.row_deadline / 2)
        self._slots = Slots(settings.fetch_workers)
        self.host_times = HostTimes()
        self._names = robots_tag.names(settings.user_agent)

    def in_doubt(self) -> int:
        """Rows that wait for hosts that have not answered for a second."""
        return self._hosts.in_doubt()

    def download(self, url: str, deadline: Deadline, *, in_batch: bool = False) -> bytes:
        """The body behind a URL, at most `max_image_bytes`. Raises RowError.

        `in_batch`: the row may fail with HostDown, because its host has not answered other rows.
        """
        most = self._settings.max_redirects
        unreachable: Unreachable | None = None

        def attempt() -> bytes:
            nonlocal unreachable
            try:
                return redirects.follow(url, request, most, deadline)
            except Unreachable as error:
                unreachable = error
                raise
            except FetchTimeout:
                if unreachable:  # that its retry found no time would tell more
                    raise unreachable from None
                raise

        def request(target: Url) -> bytes | Redirect:
            return self._request(target, url, deadline, in_batch=in_batch)

        try:
            return with_retries(attempt, self._settings, deadline)
        except RowError as error:
            told = self._disclosure.told(error, url)
            if told is error:
                raise
            try:
                raise told from None  # the causes, too, say what is inside
            finally:
                del told

    def is_refused(self, url: str) -> bool:
        """Whether a URL is refused by rule alone, without a wait for anything."""
        try:
            self._connections.refuse_by_rule(urls.parse(url))
        except RowError:
            return True
        return False

    def _request(
        self, target: Url, cell: str, deadline: Deadline, *, in_batch: bool
    ) -> bytes | Redirect:
        """One request, once a slot is free. `cell`: the URL that led to it."""
        self._connections.refuse_by_rule(target)  # before it waits for others' downloads
        with (
            self._hosts.slot(urls.server(target), deadline, in_batch=in_batch) as host,
            self._slots.slot(deadline),
        ):
            try:
                with self.host_times.timed(target.host or ""):
                    answer = self._get(target, cell, host, deadline)
            except (BadUrl, BlockedHost):  # nobody was asked
                raise
            except (FetchTimeout, NotConnected, Unreachable):
                if in_batch:
                    host.failed()
                raise
            except RowError:
                host.succeeded(redirects=False)
                raise
            host.succeeded(redirects=isinstance(answer, Redirect))
            return answer

    def _get(self, target: Url, cell: str, host: Host, deadline: Deadline) -> bytes | Redirect:
        """One request: its body, or where it redirects to. Tells the host how it went."""
        began = time.monotonic()
        visit = Visit(deadline)
        try:
            with self._connections.get(target, visit) as answer:
                where = _where(target, cell, visit)
                pause = retry_after(answer.headers.get("Retry-After", ""))
                if answer.status in OVERLOADED:
                    host.shed(began, pause)
                else:
                    host.answered(began)
                if answer.status in redirects.STATUSES and "Location" in answer.headers:
                    return Redirect(redirects.location(answer, target, where), pause)
                return self._body(answer, where, pause, deadline)
        except FetchTimeout as error:
            host.shed(began)
            if (hidden := _hidden(error, visit)) is error:
                raise  # not from itself, which would keep this call's memory
            try:
                raise hidden from error
            finally:
                del hidden  # nor would its frame be gone, and a body in another
        except network_errors.FOREIGN as error:
            deadline.cancellation.check()  # its socket was shut down
            where = _where(target, cell, visit)
            failure = network_errors.translate(error, where, self._settings, deadline)
            failure = _hidden(failure, visit)
            if failure.retryable:
                host.shed(began)
            try:
                raise failure from error
            finally:
                del failure

    def _body(
        self, answer: BaseHTTPResponse, where: str, pause: float, deadline: Deadline
    ) -> bytes:
        if answer.status not in _IMAGES:
            raise _status_error(answer.status, where, pause)
        if self._settings.respect_robots_tag:
            self._check_robots_tag(answer, where)
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

    def _check_robots_tag(self, answer: BaseHTTPResponse, where: str) -> None:
        tags = answer.headers.getlist("X-Robots-Tag")
        if directive := robots_tag.forbidding(tags, self._names):
            raise FetchFailed(
                f"{where} must not be used: its X-Robots-Tag says {directive} (the setting "
                "respect_robots_tag is on)"
            )


def _where(target: Url, cell: str, visit: Visit) -> str:
    """The URL of messages: of an answer from inside the cell's own, which a redirect has left."""
    return urls.where(urls.parse(cell) if visit.is_inside and visit.is_answered else target)


def _hidden(failure: RowError, visit: Visit) -> RowError:
    """A failure of a server inside that gave no answer is for the log alone."""
    return Unreachable(failure.message) if visit.is_inside and not visit.is_answered else failure


def _status_error(status: int, where: str, pause: float) -> RowError:
    if status in redirects.STATUSES:
        return FetchFailed(f"{where} redirects to nowhere")
    message = http_status.said(where, status)
    return StatusFailed(message, retryable=is_retryable(status), retry_after=pause)
