"""Keeps web pages from using a server without keys on the same machine.

A page from anywhere may send requests to 127.0.0.1 through its reader's browser. Two headers, which
a browser sets and a page cannot change, tell such requests from those of local programs:

- `Host` is the name in the URL. A page whose own name resolves to 127.0.0.1 (DNS rebinding) counts
  for the browser as the same site as this server, but its requests carry its name.
- `Origin` is the page's site, in requests that a page sends to another site.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from score.serve.guard import Refusal
from score.wording.quoting import quoted


class LocalOnly:
    """Refuses with 421 another host's name, with 403 another site's page."""

    def __init__(self, origins: Collection[str] = ()) -> None:
        """origins: sites whose pages may send requests; `*` for all."""
        self._origins = origins

    def __call__(self, scope: Scope) -> Refusal | None:
        """The refusal of a request; None if it may pass."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_loopback(_hostname(host)):
            said = "without keys, this server answers to localhost, 127.0.0.1 and [::1] only"
            return Refusal(421, "misdirected_request", f"{said}, not to the host {quoted(host)}")
        if origin is None or _authority(origin) == host.lower():
            return None
        if "*" in self._origins or origin.lower() in self._origins:
            return None
        said = "pages of this origin may not use the server; --cors-origin allows it"
        return Refusal(403, "forbidden_origin", f"{said}: {quoted(origin)}")


def is_loopback(host: str) -> bool:
    """Whether this is `localhost` or a loopback address, in which case no DNS is asked."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    """The name or address in a `Host` header, in lower case; empty if it is malformed."""
    try:
        url = urlsplit(f"//{host}")
        return (url.hostname or "") if url.netloc == host and "@" not in host else ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    """Host and port of an origin; empty for `null` and what is malformed."""
    return origin.lower().partition("://")[2]
