"""Middleware: a request's id, the headers of every response, and one line of the log.

A line holds no payload, no query string, no header and no client's address: an address is personal
data, and behind a proxy it is the proxy's. The id, which the proxy may send, links both logs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from score.dialects import table
from score.serve.refusals import FAILED, refusal

log = logging.getLogger("score.access")

ID = b"x-request-id"
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:=-]{1,128}")
MONITORED = table.PROBES | {"/metrics"}
"""Paths that monitors ask every few seconds."""
_LONGEST_PATH = 200
_ROUTES = [(compile_path(path)[0], path) for path in table.PATHS]


_ids = random.Random()  # not the module's own, which a program may seed
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)

TRACE_ID: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace that a request belongs to, where requests are traced."""


@dataclass(slots=True)
class Request:
    """One request, as the log and the metrics describe it. Sizes in bytes, times in seconds.

    model: the name of the one that was asked; empty where no model was.
    """

    id: str
    method: str = ""
    path: str = ""
    route: str = "none"
    status: int = 0
    model: str = ""
    rows: int = 0
    errors: int = 0
    received: int = 0
    sent: int = 0
    complete: bool = False
    began: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0


CURRENT: ContextVar[Request | None] = ContextVar("request", default=None)
"""The request that this task, or the thread that it runs, answers."""


class RequestLog:
    """Names, counts and logs requests."""

    def __init__(self) -> None:
        self.started: Callable[[], None] = lambda: None
        self.finished: Callable[[Request], None] = lambda request: None

    def around(self, app: ASGIApp) -> ASGIApp:
        """The middleware around an application."""

        async def logged(scope: Scope, receive: Receive, send: Send) -> None:
            await self._run(app, scope, receive, send)

        return logged

    async def _run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(_given_id(scope) or _new_id(), scope["method"], _path(scope))
        CURRENT.set(request)

        async def receives() -> Message:
            message = await receive()
            request.received += len(message.get("body", b""))
            return message

        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                message = {**message, "headers": _with_ours(message.get("headers", ()), request.id)}
            else:
                request.sent += len(message.get("body", b""))
                request.complete = not message.get("more_body", False)
            await send(message)

        self.started()
        try:
            await app(scope, receives, sends)
        except asyncio.CancelledError:  # the server stops, and has waited long enough
            await _instead(request, 503, "shutting_down", "the server stops", scope, sends)
        except Exception:
            log.exception("a request failed inside the server")
            await _instead(request, 500, "internal_error", FAILED, scope, sends)
        finally:
            request.route = _route(scope)
            self._finish(request)

    def refused(self, status: int, sent: int) -> list[tuple[bytes, bytes]]:
        """Logs a request that is refused before it is read. Returns headers of its response."""
        request = Request(_new_id(), status=status, sent=sent)
        TRACE_ID.set("")  # of an earlier request on this connection
        self.started()
        self._finish(request)
        return _with_ours((), request.id)

    def _finish(self, request: Request) -> None:
        request.seconds = time.perf_counter() - request.began
        self.finished(request)
        level = logging.DEBUG if _is_quiet(request) else logging.INFO
        if log.isEnabledFor(level):
            extra = {"fields": self._fields(request)}
            # Not `log.log`, which looks for the line of code that calls it.
            log.handle(log.makeRecord(log.name, level, "", 0, "request", (), None, extra=extra))

    def _fields(self, request: Request) -> dict[str, str | int | float]:
        return {
            **ids(request),
            "method": request.method,
            "path": request.path,
            "status": request.status,
            "model": request.model,
            "rows": request.rows,
            "errors": request.errors,
            "bytes_in": request.received,
            "bytes_out": request.sent,
            "milliseconds": round(1000 * request.seconds, 1),
        }


def ids(request: Request) -> dict[str, str]:
    """What names a request in the log: its id, and its trace where it has one."""
    trace = TRACE_ID.get()
    return {"request_id": request.id, **({"trace_id": trace} if trace else {})}


async def _instead(
    request: Request, status: int, code: str, message: str, scope: Scope, send: Send
) -> None:
    """Answers in place of an application that failed, unless it has done so itself."""
    if request.complete:
        return
    if request.status:
        raise ConnectionError("the answer was cut short")  # uvicorn closes the connection

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await refusal(scope, status, code, message)(scope, nothing, send)


def _is_quiet(request: Request) -> bool:
    """Whether this is one of the requests that monitors send every few seconds."""
    if request.path in table.PROBES:
        return request.status in (200, 204, 503)
    return request.path == "/metrics" and request.status == 200


def _given_id(scope: Scope) -> str:
    """The request's id if its client gave one that is fit for a log; else an empty string."""
    given = [value for name, value in scope["headers"] if name == ID]
    fit = len(given) == 1 and _WELL_FORMED.fullmatch(given[0])
    return given[0].decode() if fit else ""


def _new_id() -> str:
    """No secret, so that it need not be asked of the system, which takes as long as parsing a
    request."""
    return f"{_ids.getrandbits(128):032x}"


def _path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded, so that it cannot forge lines of a log."""
    raw: bytes = scope.get("raw_path") or b""
    return raw[:_LONGEST_PATH].decode("ascii", "backslashreplace")


def _route(scope: Scope) -> str:
    """The path of the route that answered, or would have if the request had not been refused
    before; `none` for a path that is not served."""
    route = getattr(scope.get("route"), "path", None)
    if route:
        return str(route)
    if "endpoint" in scope and not scope.get("path_params"):
        return str(scope["path"])
    # Not routed, or by an old Starlette, which does not name the route.
    return next((path for pattern, path in _ROUTES if pattern.match(scope["path"])), "none")


def _with_ours(headers: Iterable[tuple[bytes, bytes]], id: str) -> list[tuple[bytes, bytes]]:
    """Headers with the id and those of every response, unless an application has set them."""
    theirs = list(headers)
    names = {name.lower() for name, _ in theirs}
    ours = [(ID, id.encode()), *_HEADERS]
    return [*theirs, *(header for header in ours if header[0] not in names)]
