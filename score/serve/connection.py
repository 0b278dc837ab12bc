"""A connection, with bounds on what its client may leave undone.

uvicorn closes connections that are idle between requests. A connection may also wait for headers
that do not arrive, for the rest of a body that has been answered already, or for a client that does
not read its answer. The server looks at each connection twice a second (`check`) and ends those
that have waited too long for the same thing. (A body that the application waits for: `pace`.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from score.serve.refusals import refusal
from score.serve.request_log import RequestLog
from score.settings import Settings

Owed = Literal["headers", "rest", "reading"]
"""What a client owes: a request's headers; the rest of a body that is answered already; to read."""

IfLost = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""A block within which its argument is called if the client closes the connection."""

SURPLUS = "surplus"  # in the state of requests on connections beyond `max_connections`
IF_LOST = "if_lost"  # in the state of every request: its connection's `if_lost`
_SPARE = 64  # connections beyond `max_connections` that get an answer; further ones are closed
_LINGER = 5.0  # seconds for the rest of a body, so that the client gets its answer before a reset
_CHUNKS = 32_768  # pieces of a body of any size
_CHUNK = 64  # bytes that further ones have on average: reading one costs as much as a kilobyte
_PARTS = 1_000  # of a body that are read in a turn of the loop: some 10 ms
_NO_HTTP = "this is not a valid HTTP request"


class _HttpParser(h11.Connection):
    """h11's parser, which gives out the head of a response with what follows it: one packet, one
    system call.

    Refuses a body of too many small chunks. fault: why the client's bytes were refused. sent: bytes
    of responses, on their way or taken. parts: of a body that this turn of the loop has had; after
    `_PARTS` the rest is for the next.
    """

    _head: Sequence[bytes] = ()
    _pieces = _bytes = 0
    fault = _NO_HTTP
    sent = parts = 0

    def next_event(self) -> Any:
        """What the client has sent. Raises h11.RemoteProtocolError."""
        if self.parts >= _PARTS:
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Data):
            self.parts += 1
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _CHUNKS + self._bytes // _CHUNK:
                self.fault = (
                    f"the body comes in chunks of less than {_CHUNK} bytes; send larger ones"
                )
                raise h11.RemoteProtocolError(self.fault)
        elif isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        return event

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """The bytes to send now; `send` joins them."""
        data = super().send_with_data_passthrough(event)
        if isinstance(event, h11.Response):
            self._head, data = data or (), []
        elif self._head and data is not None:
            self._head, data = (), [*self._head, *data]
        self.sent += sum(map(len, data or ()))
        return data


class Connection(H11Protocol):
    """A connection that can be asked whether its client keeps it waiting."""

    def __init__(
        self,
        settings: Settings,
        log: RequestLog,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`settings`, `log`: ours; the others are uvicorn's, which makes connections."""
        super().__init__(config, server_state, {**app_state, IF_LOST: self.if_lost}, _loop)
        self.conn = self._parser = _HttpParser(h11.SERVER)
        self._settings, self._log = settings, log
        self._cancel: Callable[[], None] | None = None
        self._owed: tuple[Owed | None, object] = (None, None)
        self._since = 0.0
        self._taken = 0
        self._goes_on = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admits a connection, marks it as surplus, or closes it."""
        super().connection_made(transport)
        surplus = len(self.connections) - self._settings.max_connections
        if surplus > 0:
            self.app_state = {**self.app_state, SURPLUS: True}
        if surplus > _SPARE:
            transport.abort()

    def handle_events(self) -> None:
        """Reads what has arrived. One read of the socket may hold 40,000 chunks of a byte: others
        have turns between some of them."""
        self._parser.parts = 0
        super().handle_events()
        if self._parser.parts >= _PARTS and not self._goes_on:
            self._goes_on = True
            self.flow.pause_reading()  # what arrives meanwhile would add up
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        if not self.transport.is_closing():
            self.handle_events()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the request under way."""
        super().connection_lost(exc)
        if self._cancel:
            self._cancel()

    @contextmanager
    def if_lost(self, cancel: Callable[[], None]) -> Iterator[None]:
        """A block within which `cancel` is called if the client closes the connection."""
        self._cancel = cancel
        # The end of a large body has paused reading, which would hide that the client is gone. This
        # is done once: a client could fill the memory with what it sends before its answer.
        self.flow.resume_reading()
        try:
            yield
        finally:
            self._cancel = None

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, or a body of too many chunks."""
        self._refuse(400, "bad_request", self._parser.fault)

    def check(self, now: float) -> None:
        """Ends the connection if its client has kept it waiting too long. now: the loop's time."""
        owed = (self._what_is_owed(), self.cycle)
        if owed != self._owed:
            self._owed, self._since, self._taken = owed, now, self._taken_now()
        elif owed[0] is not None:
            self._judge(owed[0], now - self._since, now)

    def _what_is_owed(self) -> Owed | None:
        if self.transport.is_closing() or self._to_send():
            return "reading"
        answered = self.cycle is not None and self.cycle.response_complete
        if self.conn.their_state is h11.IDLE and (self._partial() or not self._is_kept_alive()):
            return "headers"
        return "rest" if answered and self.conn.their_state is h11.SEND_BODY else None

    def _judge(self, owed: Owed, waited: float, now: float) -> None:
        if owed == "reading":
            self._judge_reading(waited, now)
        elif owed == "rest":
            if waited > _LINGER:
                self.transport.close()
        elif waited > self._settings.header_timeout:
            if self._partial():
                self._refuse(408, "slow_client", "the request's headers came too slowly")
            else:
                self.transport.close()

    def _judge_reading(self, waited: float, now: float) -> None:
        if waited <= self._settings.body_timeout:
            return
        taken = self._taken_now()
        if self._to_send() and taken - self._taken >= self._settings.min_body_rate * waited:
            self._since, self._taken = now, taken
        else:
            self.transport.abort()

    def _to_send(self) -> int:
        """Bytes of answers that the client has not taken."""
        return self.transport.get_write_buffer_size()

    def _taken_now(self) -> int:
        """Bytes of answers that the client has taken. With TLS a little less: what is to be sent
        is encrypted."""
        return self._parser.sent - self._to_send()

    def _partial(self) -> bool:
        """Whether a part of a request's headers has arrived."""
        return bool(self.conn.trailing_data[0])

    def _is_kept_alive(self) -> bool:
        """Whether uvicorn will close the connection if no request comes. It does not before the
        first request, nor once the rest of a body that was answered already has arrived."""
        return self.timeout_keep_alive_task is not None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answers a request that never reached the application, and closes."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            refused = refusal(None, status, code, message)
            headers = [*refused.raw_headers, *self._log.refused(status, len(refused.body))]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=bytes(refused.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def factory(settings: Settings, log: RequestLog) -> Callable[..., Connection]:
    """What uvicorn makes a connection of."""

    def make(**given: Any) -> Connection:
        return Connection(settings, log, **given)

    return make
