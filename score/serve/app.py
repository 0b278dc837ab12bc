"""The HTTP server of `score serve`: the paths of the table of dialects.

It only handles routes and transport; `core.endpoint` parses and answers requests.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import uvicorn
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from score.core import endpoint
from score.core.embedder import Embedder
from score.core.endpoint import Answer
from score.core.models import Models
from score.dialects import base as dialects
from score.dialects import table
from score.dialects.base import Message
from score.errors import RequestError, body_too_large

Endpoint = Callable[[Request], Awaitable[Response]]

log = logging.getLogger("uvicorn.error")  # uvicorn's own log

_REQUESTS = 256  # concurrent requests; their rows are encoded in shared batches


def application(embedder: Embedder) -> Starlette:
    """The ASGI application that serves a model: the paths of the table of dialects."""
    models = Models.only(embedder)
    limit = models.settings.max_request_bytes
    threads = CapacityLimiter(_REQUESTS)

    def scoring(route: dialects.Route) -> Endpoint:
        async def score(request: Request) -> Response:
            body = await _body(request, limit)
            if body is None:
                return _response(endpoint.refuse(body_too_large(limit), route.refuse))
            message = _message(request, body)
            answer = to_thread.run_sync(endpoint.answer, models, route, message, limiter=threads)
            return _response(await answer)

        return score

    def reading(page: dialects.Page) -> Endpoint:
        async def read(request: Request) -> Response:
            return _response(endpoint.read(models, page, _message(request)))

        return read

    return Starlette(
        routes=[
            *(Route(route.path, scoring(route), methods=["POST"]) for route in table.ROUTES),
            *(Route(page.path, reading(page), methods=["GET"]) for page in table.PAGES),
        ],
        exception_handlers={HTTPException: _not_served},
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to an address; connections are refused until `serve`.

    Raises RequestError for an address that is in use, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: an invalid host name
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{host}, port {port}: {reason}") from None
    return listener


def serve(embedder: Embedder, listener: socket.socket, log_level: str) -> None:
    """Serves until interrupted; pending requests are finished first."""
    server = uvicorn.Server(uvicorn.Config(application(embedder), log_level=log_level))
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving http://%s:%d/score (Ctrl+C to quit)", shown, port)
    with suppress(KeyboardInterrupt):  # raised after all requests are finished
        server.run(sockets=[listener])


async def _body(request: Request, limit: int) -> bytes | None:
    """The request's body; None if it is larger than `limit` bytes, of which no more are read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        return None
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return None
    except ClientDisconnect:
        raise HTTPException(400, "the client disconnected") from None
    return bytes(body)


def _message(request: Request, body: bytes = b"") -> Message:
    kind = request.headers.get("content-type", "")
    return Message(body, kind, request.path_params.get("model"))


async def _not_served(request: Request, error: Exception) -> Response:
    """A path that is not served, in the contract's shape; a wrong method, in the path's dialect."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    message = f"{request.method} {request.url.path} is not served; GET /docs lists what is"
    answer = endpoint.problem(status, code, message, table.shape_of(request.url.path))
    return _response(answer, getattr(error, "headers", None))


def _response(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    return Response(answer.body, answer.status, headers, media_type=answer.kind)
