"""The page at `/`, on which people try the model in a browser: the files of the folder `page/`.

Browsers let them load nothing from elsewhere, run no inline script, and not be framed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).with_name("page")
_NAMES = (
    *("page.css", "icon.svg"),
    *("page.js", "code.js", "dom.js", "images.js", "models.js", "results.js", "server.js"),
)
FILES = {"/": "index.html", **{f"/page/{name}": name for name in _NAMES}}
"""Path → file. Anybody may read them: they hold nothing of the model."""

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked for each time: another version may be served
}


def routes() -> list[Route]:
    """A route for each file."""
    return [
        Route(path, _reading(_FOLDER / name), methods=["GET"], name=name)
        for path, name in FILES.items()
    ]


def _reading(file: Path) -> Callable[[Request], Awaitable[Response]]:
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}

    async def read(request: Request) -> Response:
        if tag in _known(request):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_TYPES[file.suffix])

    return read


def _known(request: Request) -> list[str]:
    """The tags of what the browser has. Proxies that compress make weak tags (`W/"…"`) of them."""
    tags = request.headers.get("if-none-match", "").split(",")
    return [tag.strip().removeprefix("W/") for tag in tags]
