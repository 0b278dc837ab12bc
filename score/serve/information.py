"""`GET /metrics` and `GET /version`."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from score.core.identity import Identity
from score.serve import metrics
from score.serve.metrics import Metrics


def routes(identity: Identity, measured: Metrics) -> list[Route]:
    """The routes of a loaded model."""

    async def version(request: Request) -> Response:
        return JSONResponse(asdict(identity))

    async def all_metrics(request: Request) -> Response:
        return Response(measured.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    return [
        Route("/version", version, methods=["GET"]),
        Route("/metrics", all_metrics, methods=["GET"]),
    ]
