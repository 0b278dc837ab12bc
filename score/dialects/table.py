"""All paths that the server answers."""

from __future__ import annotations

from collections.abc import Sequence

from score.dialects import (
    azure,
    classify,
    cohere,
    docs_page,
    huggingface,
    kserve,
    mlflow,
    openai,
    openapi,
    similarity,
    weaviate,
)
from score.dialects.base import (
    JSON,
    Message,
    ModelFacts,
    Page,
    Refuse,
    Reply,
    Route,
    ServerPage,
)

HTML = "text/html"


def _openapi(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, openapi.document(ROUTES, PAGES, OF_THE_SERVER, message.bounds))


def _docs(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, docs_page.html(ROUTES, _READ, models, message.origin), HTML)


ROUTES: tuple[Route, ...] = (
    azure.SCORE,
    azure.SEARCH,
    mlflow.INVOCATIONS,
    openai.EMBEDDINGS,
    cohere.EMBED,
    classify.CLASSIFY,
    huggingface.ZERO_SHOT,
    similarity.SIMILARITY,
    weaviate.VECTORIZE,
    kserve.INFER,
)
PAGES: tuple[Page, ...] = (
    *mlflow.PAGES,
    openai.MODELS,
    openai.MODEL,
    *weaviate.PAGES,
    *kserve.PAGES,
    Page("/openapi.json", "all paths, as OpenAPI 3.1", _openapi, azure.refuse),
    Page("/docs", "all paths, with examples", _docs, azure.refuse),
)

OF_THE_SERVER: tuple[ServerPage, ...] = (
    ServerPage("/", "a page to try the model in a browser", {200: HTML}),
    ServerPage("/health/live", "whether the process answers", {200: JSON}, "live"),
    ServerPage(
        "/health/ready", "whether the model answers rightly", {200: JSON, 503: JSON}, "ready"
    ),
    ServerPage("/metrics", "what has been measured, for Prometheus", {200: "text/plain"}),
    ServerPage(
        "/version", "which model is served, by which version, engine and precision", {200: JSON}
    ),
)
"""What `score serve` answers beside the dialects. The files of the page at `/` are not listed."""

LIVE = frozenset(page.path for page in PAGES if page.probe == "live")
READY = frozenset(page.path for page in PAGES if page.probe == "ready")
_READ: tuple[Page | ServerPage, ...] = (*PAGES, *OF_THE_SERVER)
PROBES = frozenset(page.path for page in _READ if page.probe)
"""What load balancers ask: paths that need no key."""
PATHS = (*(route.path for route in ROUTES), *(page.path for page in _READ))


def shape_of(path: str) -> Refuse:
    """The shape of errors at a path; the contract's at one that is not served."""
    entries: tuple[Route | Page, ...] = (*ROUTES, *PAGES)
    for entry in entries:
        fixed, name, _ = entry.path.partition("{")
        if path == fixed or (name and path.startswith(fixed)):
            return entry.refuse
    return azure.refuse
