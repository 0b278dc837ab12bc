"""The local and container server: `POST /score` with the Azure contract, `GET /ping`.

Routes and transport only; what a request means is `endpoint`'s to say.
"""

from __future__ import annotations

import logging
import socket
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
from score.errors import RequestError, body_too_large

log = logging.getLogger("uvicorn.error")  # where its log says what the server does

_REQUESTS = 256  # answered at a time; their rows meet in the encoder's passes


def application(embedder: Embedder) -> Starlette:
    """The ASGI application that serves a model."""
    limit = embedder.settings.max_request_bytes
    threads = CapacityLimiter(_REQUESTS)

    async def score(request: Request) -> Response:
        body = await _body(request, limit)
        if body is None:
            return _response(endpoint.refuse(body_too_large(limit)))
        answer = to_thread.run_sync(endpoint.score, embedder, body, limiter=threads)
        return _response(await answer)

    async def ping(request: Request) -> Response:
        return Response(b'{"status": "ok"}', media_type="application/json")

    return Starlette(
        routes=[Route("/score", score, methods=["POST"]), Route("/ping", ping, methods=["GET"])],
        exception_handlers={HTTPException: _not_served},
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds an address; connections are refused until it is served on.

    Raises RequestError for an address that is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError) as error:  # the latter of what is no host name
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{host}, port {port}: {reason}") from None
    return listener


def serve(embedder: Embedder, listener: socket.socket, log_level: str) -> None:
    """Serves until interrupted; requests under way are finished first."""
    server = uvicorn.Server(uvicorn.Config(application(embedder), log_level=log_level))
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving http://%s:%d/score (Ctrl+C to quit)", shown, port)
    with suppress(KeyboardInterrupt):  # raised when all is finished
        server.run(sockets=[listener])


async def _body(request: Request, limit: int) -> bytes | None:
    """The request's body; None as soon as it proves larger than `limit` bytes."""
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
        raise HTTPException(400, "the client went away") from None
    return bytes(body)


async def _not_served(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    message = f"{request.method} {request.url.path} is not served; POST /score or GET /ping"
    return _response(endpoint.problem(status, code, message))


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type="application/json")
