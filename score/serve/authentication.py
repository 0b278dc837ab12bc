"""The check that a request has a valid key, and is within the rate of that key.

Health checks and the files of the page are open: a load balancer has no key, and the page has a
field for one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import Scope

from score.dialects import table
from score.serve import web_page
from score.serve.guard import Refusal
from score.serve.key_ring import KeyRing
from score.serve.rate_limit import RateLimit

KEY_HEADERS = ("authorization", "api-key", "x-api-key")
"""Headers that may hold a key: the first as `Bearer KEY`, the others the key alone."""

_OPEN = (*web_page.FILES, *table.PROBES)
_HOW = "send it in the header `Authorization: Bearer KEY`, `api-key` or `x-api-key`"


class Authentication:
    """Refuses with 401 without a valid key, with 429 over the key's rate."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring, self._limit = ring, RateLimit()

    def __call__(self, scope: Scope) -> Refusal | None:
        """The refusal of a request; None if it may pass."""
        if _is_open(scope):
            return None
        presented = list(_presented(Headers(scope=scope)))
        key = self._ring.find(presented)
        if key is None:
            said = "the key is not valid" if presented else f"this server asks for a key: {_HOW}"
            return Refusal(401, "unauthorized", said, {"WWW-Authenticate": "Bearer"})
        if wait := self._limit.wait(key):
            said = f"more than {key.per_minute} requests a minute with this key"
            return Refusal(429, "rate_limited", said, retry_after=math.ceil(wait))
        return None


def _is_open(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD") and scope["path"] in _OPEN


def _presented(headers: Headers) -> Iterator[bytes]:
    """The keys in a request's headers. Clients that fill in a placeholder may send several."""
    for name in KEY_HEADERS:
        value = headers.get(name, "").strip()
        if name == "authorization":
            scheme, _, value = value.partition(" ")
            if scheme.lower() != "bearer":
                continue
        if value := value.strip():
            yield value.encode("latin-1")
