"""The server's address as a request came to it, for pages that show it."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import Scope

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def origin_of(scope: Scope) -> str:
    """`http://host:port`, by the header `Host`; by the socket where that is no host's name.

    A proxy with TLS says so by `X-Forwarded-Proto`. What it returns is shown and never trusted.
    """
    headers = Headers(scope=scope)
    host, scheme = headers.get("host", ""), headers.get("x-forwarded-proto", "")
    if not _HOST.fullmatch(host):
        address, port = scope.get("server") or ("localhost", None)
        named = f"[{address}]" if ":" in address else address
        host = named if port is None else f"{named}:{port}"
    return f"{scheme if scheme in ('http', 'https') else scope['scheme']}://{host}"
