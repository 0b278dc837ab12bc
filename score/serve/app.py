"""The HTTP server of `score serve`: `POST /score` with Azure's request format, and `GET /ping`.

It only handles routes and transport; `core.endpoint` parses and answers requests.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from score.core import endpoint
from score.core.embedder import Embedder
from score.core.endpoint import Answer
from score.errors import RequestError, body_too_large
from score.serve.calls import Calls

log = logging.getLogger("uvicorn.error")  # uvicorn's own log


def application(embedder: Embedder) -> Starlette:
    """The ASGI application that serves a model."""
    limit = embedder.settings.max_request_bytes
    calls = Calls(embedder.settings)

    async def score(request: Request) -> Response:
        body = await _body(request, limit)
        if body is None:
            return _response(endpoint.refuse(body_too_large(limit)))
        work = partial(endpoint.score, embedder, body, None)
        return _response(await calls.answered(request, len(body), work))

    async def ping(request: Request) -> Response:
        return Response(b'{"status": "ok"}', media_type="application/json")

    return Starlette(
        routes=[Route("/score", score, methods=["POST"]), Route("/ping", ping, methods=["GET"])],
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


async def _not_served(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    message = f"{request.method} {request.url.path} is not served; POST /score or GET /ping"
    return _response(endpoint.problem(status, code, message))


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, media_type="application/json")
