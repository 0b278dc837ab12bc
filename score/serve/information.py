"""`GET /metrics` and `GET /version`."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from score.core.identity import Identity
from score.serve import metrics
from score.serve.metrics import Metrics


def routes(identity: Future[Identity], measured: Metrics) -> list[Route]:
    """The routes of a loaded model. `identity` is known once its files have been read again."""

    async def version(request: Request) -> Response:
        known: Identity = await asyncio.wrap_future(identity)
        return JSONResponse(asdict(known))

    async def all_metrics(request: Request) -> Response:
        return Response(measured.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    return [
        Route("/version", version, methods=["GET"]),
        Route("/metrics", all_metrics, methods=["GET"]),
    ]
