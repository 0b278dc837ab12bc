"""The application of `score serve`: `POST /score` with Azure's request format.

It only handles routes; `core.endpoint` parses and answers requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from score.core import endpoint
from score.core.embedder import Embedder
from score.errors import body_too_large
from score.serve import body
from score.serve.refusals import FAILED, response

_REQUESTS = 256  # concurrent requests; their rows are encoded in shared batches


def application(embedder: Embedder, others: Sequence[Route] = ()) -> Starlette:
    """The ASGI application that scores with a model; `others`: further routes."""
    limit = embedder.settings.max_request_bytes
    threads = CapacityLimiter(_REQUESTS)

    async def score(request: Request) -> Response:
        content = await body.read(request, limit)
        if content is None:
            return response(endpoint.refuse(body_too_large(limit)))
        answer = to_thread.run_sync(endpoint.score, embedder, content, limiter=threads)
        return response(await answer)

    return Starlette(
        routes=[Route("/score", score, methods=["POST"]), *others],
        exception_handlers={HTTPException: _not_served, Exception: _failed},
    )


async def _failed(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer, and `RequestLog` logs it."""
    return response(endpoint.problem(500, "internal_error", FAILED))


async def _not_served(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    message = f"{request.method} {request.url.path} is not served; POST /score or GET /ping"
    return response(endpoint.problem(status, code, message))
