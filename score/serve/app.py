"""The application of `score serve` once its model is loaded: the paths of the table of dialects.

It only handles routes; `core.endpoint` parses and answers requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from score.core import endpoint
from score.core.embedder import Embedder
from score.core.endpoint import Answer
from score.core.models import Models
from score.dialects import base as dialects
from score.dialects import table
from score.dialects.base import Message
from score.fetch.cancellation import Cancellation
from score.serve.calls import Calls
from score.serve.refusals import FAILED, problem, response

Endpoint = Callable[[Request], Awaitable[Response]]


def application(embedder: Embedder, others: Sequence[Route] = ()) -> Starlette:
    """The ASGI application that serves a model; `others`: routes that are of no dialect."""
    models = Models.only(embedder)
    calls = Calls(models.settings)

    def scoring(route: dialects.Route) -> Endpoint:
        async def score(request: Request) -> Response:
            def work(content: bytes, call: Cancellation) -> Answer:
                message = _message(request, content)
                return endpoint.answer(models, route, message, None, call)

            return response(await calls.answered(request, work, route.refuse))

        return score

    def reading(page: dialects.Page) -> Endpoint:
        async def read(request: Request) -> Response:
            return response(endpoint.read(models, page, _message(request)))

        return read

    app = Starlette(
        routes=[
            *(Route(route.path, scoring(route), methods=["POST"]) for route in table.ROUTES),
            *(Route(page.path, reading(page), methods=["GET"]) for page in table.PAGES),
            *others,
        ],
        exception_handlers={HTTPException: _not_served, Exception: _failed},
    )
    app.router.redirect_slashes = False  # a redirect is no answer of the contract
    return app


def _message(request: Request, content: bytes = b"") -> Message:
    kind = request.headers.get("content-type", "")
    return Message(content, kind, request.path_params.get("model"))


async def _failed(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer, and `RequestLog` logs it."""
    return response(problem(request.scope, 500, "internal_error", FAILED))


async def _not_served(request: Request, error: Exception) -> Response:
    """A path that is not served, in the contract's shape; a wrong method, in the path's dialect."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    # Not `request.url`, which parses the header `Host`.
    message = f"{request.method} {request.scope['path']} is not served; GET /docs lists what is"
    answer = problem(request.scope, status, code, message)
    return response(answer, getattr(error, "headers", None))
