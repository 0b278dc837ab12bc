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
from score.dialects.base import Message, ModelFacts, Page, Refuse, Reply, Route


def _openapi(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, openapi.document(ROUTES, PAGES))


def _docs(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, docs_page.html(ROUTES, PAGES, models), "text/html")


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

LIVE = frozenset(page.path for page in PAGES if page.probe == "live")
READY = frozenset(page.path for page in PAGES if page.probe == "ready")


def shape_of(path: str) -> Refuse:
    """The shape of errors at a path; the contract's at one that is not served."""
    entries: tuple[Route | Page, ...] = (*ROUTES, *PAGES)
    for entry in entries:
        fixed, name, _ = entry.path.partition("{")
        if path == fixed or (name and path.startswith(fixed)):
            return entry.refuse
    return azure.refuse
