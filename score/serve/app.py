"""The application of `score serve`: the paths of the table of dialects.

It only handles routes; `core.endpoint` parses and answers requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from score.concurrency.cancellation import Cancellation
from score.concurrency.steps import Steps
from score.core import endpoint
from score.core.endpoint import Answer
from score.core.models import Models
from score.dialects import base as dialects
from score.dialects import table
from score.dialects.base import Message
from score.serve.calls import Calls
from score.serve.origin import origin_of
from score.serve.refusals import FAILED, problem, response
from score.serve.request_log import CURRENT
from score.wording.quoting import LONGEST

Endpoint = Callable[[Request], Awaitable[Response]]


def application(models: Models, others: Sequence[Route] = ()) -> ASGIApp:
    """The ASGI application that serves models; `others`: routes that are of no dialect."""
    calls = Calls(models.settings)

    def scoring(route: dialects.Route) -> Endpoint:
        async def score(request: Request) -> Response:
            def work(content: bytes, call: Cancellation) -> Steps[Answer]:
                message = _message(request, content)
                return endpoint.answering(models, route, message, None, call)

            answer = await calls.answered(request, work, route.refuse)
            if logged := CURRENT.get():
                logged.model = answer.model
            return response(answer)

        return score

    def reading(page: dialects.Page) -> Endpoint:
        async def read(request: Request) -> Response:
            message = replace(_message(request), origin=origin_of(request.scope))
            return response(endpoint.read(models, page, message))

        return read

    posts = {route.path: scoring(route) for route in table.ROUTES}
    app = Starlette(
        routes=[
            *(Route(path, score, methods=["POST"]) for path, score in posts.items()),
            *(Route(page.path, reading(page), methods=["GET"]) for page in table.PAGES),
            *others,
        ],
        exception_handlers={HTTPException: _not_served, Exception: _failed},
    )
    app.router.redirect_slashes = False  # a redirect is no answer of the contract
    fixed = {path: score for path, score in posts.items() if "{" not in path}
    return _Direct(fixed, app)


class _Direct:
    """Answers POSTs at fixed paths; Starlette the rest: pages, patterns, what is not served.

    Starlette's router tries pattern after pattern, and wraps each request in three layers.
    """

    def __init__(self, posts: Mapping[str, Endpoint], others: ASGIApp) -> None:
        self._posts, self._others = posts, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        score = self._posts.get(scope["path"]) if scope["method"] == "POST" else None
        if score is None:
            await self._others(scope, receive, send)
        else:
            scope["endpoint"] = score
            answer = await score(Request(scope, receive))
            await answer(scope, receive, send)


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
    asked = f"{request.method[:LONGEST]} {request.scope['path'][:LONGEST]}"
    message = f"{asked} is not served; GET /docs lists what is"
    answer = problem(request.scope, status, code, message)
    return response(answer, getattr(error, "headers", None))
