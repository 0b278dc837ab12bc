"""`/docs`: the table of dialects as one HTML page, which loads nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from urllib.parse import quote

from score.dialects.base import JSON, ModelFacts, Page, Refusal, Route, ServerPage

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; font-size: 1.1rem; border-top: 1px solid #8886; padding-top: 1rem; }
h3 { margin: 1rem 0 .3rem; font-size: .95rem; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { background: #8882; padding: .7rem; border-radius: .4rem; overflow-x: auto; }
"""


def html(
    routes: Sequence[Route],
    pages: Sequence[Page | ServerPage],
    models: Sequence[ModelFacts],
    origin: str,
) -> str:
    """The page. origin: of the URLs in its examples, as `http://host:port`."""
    names = ", ".join(f"<code>{escape(model.name)}</code>" for model in models)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>clip-endpoints</title><style>{_STYLE}</style></head><body>",
            f"<h1>clip-endpoints</h1><p>Models: {names}. As OpenAPI: ",
            '<a href="openapi.json">/openapi.json</a>.</p>',
            *(line for route in routes for line in _route(route, models, origin)),
            "<h2>Pages</h2><ul>",
            *(f"<li><code>GET {escape(p.path)}</code> {escape(p.summary)}</li>" for p in pages),
            "</ul></body></html>",
        ]
    )


def _route(route: Route, models: Sequence[ModelFacts], origin: str) -> Iterator[str]:
    yield f"<h2><code>POST {escape(route.path)}</code> {escape(route.summary)}</h2>"
    yield f"<p>Bodies: {escape(', '.join(route.takes))}</p>"
    refused = route.refuse(Refusal(400, "bad_request", "the body is not JSON")).content
    for title, example in (
        ("Request", _curl(route, models, origin)),
        ("Answer, vectors cut short", json.dumps(route.answer, indent=1, ensure_ascii=False)),
        ("Error", json.dumps(refused, indent=1, ensure_ascii=False)),
    ):
        yield f"<h3>{title}</h3><pre>{escape(example)}</pre>"


def _curl(route: Route, models: Sequence[ModelFacts], origin: str) -> str:
    body = json.dumps(route.example, ensure_ascii=False)
    path = route.path.replace("{model:path}", quote(models[0].name) if models else "MODEL")
    return f"curl {origin}{path} -H 'Content-Type: {JSON}' \\\n  -d '{body}'"
