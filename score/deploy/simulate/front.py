"""The front end of a managed online endpoint: the HTTP server between clients and a container.

Its statuses are those that Microsoft documents
(https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints#http-status-codes):
424 where the container answers anything but 200, whose own status is in a header; 408 for a request
that takes longer than `request_timeout_ms`; 429 for more concurrent requests than
2 × `max_concurrent_requests_per_instance` × `instance_count`; 401 for a wrong key. Microsoft does
not document these, so they are chosen here: a container that cannot be reached counts as its 503,
one that closes the connection early as its 502; the bodies of 401, 408 and 429.
"""

from __future__ import annotations

import hmac
import http.client
import logging
import re
import select
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import NamedTuple

from score.console.flags import port_error
from score.errors import AzureError
from score.fetch.framing import Chunks, Malformed

log = logging.getLogger(__name__)

STATUS, REASON = "ms-azureml-model-error-statuscode", "ms-azureml-model-error-reason"
"""Headers of a 424: the container's status, and the kind of error."""

_HOST = "127.0.0.1"
_IDLE = 120.0  # seconds that a client may send nothing, within a request or between two
_POLL = 0.1  # seconds between checks whether a client in the queue is still connected
_CLIENT_ID = "x-ms-client-request-id"
# Hop-by-hop headers, which a proxy does not forward (RFC 9110, 7.6.1), and Content-Length, which is
# written anew.
_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
_HOP |= {"upgrade", "expect", "content-length"}

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Limits:
    """The request limits of a deployment's YAML."""

    seconds: float  # for a request, including its wait in the queue
    concurrency: int  # requests that an instance processes at a time
    instances: int

    @property
    def most(self) -> int:
        """The most concurrent requests, those in the queue included; more get a 429."""
        return 2 * self.concurrency * self.instances


class Answer(NamedTuple):
    """The response to a client."""

    status: int
    fields: Fields
    body: bytes = b""


class Front:
    """Reserves a port of this machine, and serves on it within `serving`."""

    def __init__(self, port: int, container: int, limits: Limits, key: str | None = None) -> None:
        """`container`: the port of the deployment's server; `key`: what clients must send as
        `Authorization: Bearer KEY`, if anything. Raises AzureError for a port that is in use."""
        with _port_errors(port):
            self._server = _Server(port, container, limits, key)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serves until the context is left; connections are refused before. Raises AzureError where
        another process has started to listen on the port."""
        with _port_errors(self._server.server_port):
            self._server.server_activate()
        thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()

    def close(self) -> None:
        """Releases the port."""
        self._server.server_close()


@contextmanager
def _port_errors(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AzureError(f"port {port}: {port_error(error)}") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, container: int, limits: Limits, key: str | None) -> None:
        super().__init__((_HOST, port), _Handler, bind_and_activate=False)
        self.container, self.limits, self.key = container, limits, key
        self.accepted = threading.BoundedSemaphore(limits.most)
        self.slots = threading.BoundedSemaphore(limits.concurrency)  # of the one instance here
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that disconnected
            log.exception("the front end failed")


class _ClientGone(ConnectionError):
    """The client has disconnected."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    wbufsize = -1
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        try:
            body = self._body()
        except Malformed as error:
            self.send_error(400, f"the client {error}")
            return
        answer = self._checked(body)
        self.send_response_only(answer.status)
        for name, value in answer.fields:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else answer.body)
        if answer.status != 200:
            status = dict(answer.fields).get(STATUS)
            container = f" (the container's {status})" if status else ""
            log.warning("%s %s: %d%s", self.command, self.path, answer.status, container)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def handle_expect_100(self) -> bool:
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: the container logs requests, and `_answer` the front end's own statuses."""

    def _body(self) -> bytes:
        """Reads the whole body: many clients read no answer before they have sent it. Raises
        Malformed."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            assert isinstance(self.rfile, BufferedReader)
            return BufferedReader(Chunks(self.rfile)).read()
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal():
            raise Malformed("sent an unusable Content-Length")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _ClientGone
        return body

    def _checked(self, body: bytes) -> Answer:
        request_id = ("x-request-id", str(uuid.uuid4()))
        if not self._authorised():
            answer = _refusal(401, "the key is missing or wrong: Authorization: Bearer KEY")
        elif not self.server.accepted.acquire(blocking=False):
            answer = _refusal(429, "", (REASON, "too_many_pending_request"))
        else:
            try:
                answer = self._forwarded(body, request_id)
            finally:
                self.server.accepted.release()
        fields = [field for field in answer.fields if field[0].lower() != request_id[0]]
        return answer._replace(fields=[*fields, request_id])

    def _authorised(self) -> bool:
        if self.server.key is None:
            return True
        header = self.headers.get("Authorization", "")
        return hmac.compare_digest(header.encode(), f"Bearer {self.server.key}".encode())

    def _forwarded(self, body: bytes, request_id: tuple[str, str]) -> Answer:
        """The container's answer, translated as Azure does. Waits for a free slot first."""
        end = time.monotonic() + self.server.limits.seconds
        try:
            self._wait_for_slot(end)
            try:
                answer = self._ask_container(body, [*self._fields(), request_id], end)
            finally:
                self.server.slots.release()
        except TimeoutError:
            return _refusal(408, "upstream request timeout")
        if answer.status == 200:
            return answer
        reason = [(REASON, "model_error"), (STATUS, str(answer.status))]
        return Answer(424, [*answer.fields, *reason], answer.body)

    def _wait_for_slot(self, end: float) -> None:
        while not self.server.slots.acquire(timeout=min(_POLL, _left(end))):
            self._check_client()

    def _ask_container(self, body: bytes, fields: Fields, end: float) -> Answer:
        connection = http.client.HTTPConnection(_HOST, self.server.container, timeout=_left(end))
        try:
            try:
                connection.connect()
            except ConnectionError:
                return _refusal(503, "the container cannot be reached")
            container = connection.sock
            connection.putrequest(self.command, self.path, True, True)
            for name, value in fields:
                connection.putheader(name, value)
            if body or self.command not in ("GET", "HEAD"):
                connection.putheader("Content-Length", str(len(body)))
            # The container may have answered before it has read the body: it is read below.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(body)
            self._wait_for_answer(container, end)
            response = connection.getresponse()
            answer = Answer(response.status, _end_to_end_headers(response.getheaders()))
            parts = []
            while part := response.read1():
                parts.append(part)
                container.settimeout(_left(end))
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return answer._replace(body=b"".join(parts))
        except (TimeoutError, _ClientGone):
            raise
        except (OSError, http.client.HTTPException):
            return _refusal(502, "the container broke off")
        finally:
            connection.close()

    def _wait_for_answer(self, container: socket.socket, end: float) -> None:
        """Returns when the container starts to answer. Raises TimeoutError and _ClientGone."""
        watched = [container, self.connection]
        while True:
            readable = select.select(watched, [], [], _left(end))[0]
            if container in readable:
                container.settimeout(_left(end))
                return
            if self._check_client():
                watched = [container]  # the client has sent its next request already

    def _check_client(self) -> bool:
        """Whether the client has sent bytes after its request. Raises _ClientGone."""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            sent = self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            sent = b""
        if not sent:
            raise _ClientGone
        return True

    def _fields(self) -> Fields:
        """The headers that the container gets."""
        replaced = ("host", "x-request-id", _CLIENT_ID)
        headers = _end_to_end_headers(self.headers.items())
        fields = [field for field in headers if field[0].lower() not in replaced]
        fields.append(("Host", self.headers.get("Host", _HOST)))
        if client := re.sub(r"[^A-Za-z0-9_-]", "", self.headers.get(_CLIENT_ID, "")):
            fields.append((_CLIENT_ID, client[:40]))
        return fields


def _end_to_end_headers(fields: Iterable[tuple[str, str]]) -> Fields:
    return [(name, value) for name, value in fields if name.lower() not in _HOP]


def _refusal(status: int, message: str, *fields: tuple[str, str]) -> Answer:
    return Answer(status, [("Content-Type", "text/plain"), *fields], message.encode())


def _left(end: float) -> float:
    """Seconds until `end`, a time of `time.monotonic`. Raises TimeoutError where that is past."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
