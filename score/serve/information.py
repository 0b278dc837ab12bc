"""`GET /metrics` and `GET /version`."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from score import __version__
from score.core.identity import Identity
from score.core.models import Models
from score.core.served_model import ServedModel
from score.serve import metrics
from score.serve.metrics import Metrics


def routes(models: Models, measured: Metrics) -> list[Route]:
    """The routes of a server of these models."""

    async def version(request: Request) -> Response:
        each = [_identity(model) for model in models]
        states = [{**one, "state": model.state} for one, model in zip(each, models, strict=True)]
        return JSONResponse({**each[0], "models": states})

    async def all_metrics(request: Request) -> Response:
        return Response(measured.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    return [
        Route("/version", version, methods=["GET"]),
        Route("/metrics", all_metrics, methods=["GET"]),
    ]


def _identity(model: ServedModel) -> dict[str, Any]:
    """The model's identity; of one that has never been loaded what is known, and None."""
    if model.identity is not None:
        return asdict(model.identity)
    unknown = dict.fromkeys(field.name for field in fields(Identity))
    return {**unknown, "version": __version__, "model": model.name}
