"""Answers of the server itself, before or instead of the model's."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from score.core import endpoint
from score.core.endpoint import Answer

FAILED = "the server failed; its log says why"
RETRY_AFTER = 1  # seconds after which a refused request may be sent again


def response(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as a response."""
    return Response(
        answer.body, answer.status, {**answer.headers, **(headers or {})}, media_type=answer.kind
    )


def refusal(status: int, code: str, message: str) -> Response:
    """An error that ends the connection; a 503 says when to try again."""
    refused = response(endpoint.problem(status, code, message))
    refused.headers["Connection"] = "close"
    if status == 503:
        refused.headers["Retry-After"] = str(RETRY_AFTER)
    return refused
